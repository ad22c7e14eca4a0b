-- What runs ask people, and what these decided.

create table approval (
  id         bigint generated always as identity,
  run_id     bigint not null,
  name       text not null,                        -- as a step is kept
  nth        integer not null,
  nonce      uuid not null default gen_random_uuid(),
  key        integer not null,                     -- number of the key that signs its links
  question   text not null,
  people     text[] not null,                      -- each has a link of his own; empty: whoever has the link
  asked_at   timestamptz not null default now(),
  expires_at timestamptz not null,
  over       boolean not null default false,       -- its run was told that nobody decided in time
  decided_at timestamptz,
  approved   boolean,
  by         text,
  via        text,                                 -- kernel.seam.approval.Via
  address    text,                                 -- of who had a link
  comment    text,
  primary key (run_id, name, nth)
);
create unique index approval_id on approval (id);
create index approval_open on approval (id) where decided_at is null and not over;
