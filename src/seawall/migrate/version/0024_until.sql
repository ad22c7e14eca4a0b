-- Runs that end at a moment, however they stand then.

-- From the first start of a run whose workflow has a total timeout. A row outlives its run until it is pruned.
create table run_until (
  run_id     bigint primary key,
  until      timestamptz not null,
  total_ms   bigint not null,
  parent_id  bigint                              -- the run that waits for it, maybe
);
create index run_until_due on run_until (until);

-- Of a run in state 9: status and cause with which it ends, in one number (kernel/cause.py). Null: cancelled by hand.
alter table run add column ends_as smallint;
