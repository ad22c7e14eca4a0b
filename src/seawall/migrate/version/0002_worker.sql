-- Which worker has which workflows: what its app declared when it registered last. A version is offered to new events only
-- while a live worker has it; what nobody has any more is found, and said.
create table worker (
  owner         uuid primary key,                -- as in shard_lease
  workflow_ids  integer[] not null,
  seen_at       timestamptz not null default now()
) with (fillfactor = 50);
