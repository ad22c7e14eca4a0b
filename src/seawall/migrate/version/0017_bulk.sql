-- Acts on many runs at once: which runs, fixed when somebody asked, and how far it has come.
create table bulk (
  id         bigint generated always as identity primary key,
  act        text not null,                      -- store.bulk.Act
  selection  text not null,                      -- as it was written; of an undo, which bulk
  by         text not null,
  why        text not null,
  chosen     integer not null,
  after      bigint not null default -1,         -- runs up to here were seen to in this round
  done       integer not null default 0,
  missed     integer not null default 0,         -- had ended, or stood elsewhere, when their turn came
  rounds     integer not null default 0,         -- 0: through all; above: through those that were put off
  undoes     bigint unique references bulk (id),
  at         timestamptz not null default now(),
  ended_at   timestamptz
);
create index bulk_open on bulk (id) where ended_at is null;

create table bulk_run (
  bulk_id  bigint not null references bulk (id),
  run_id   bigint not null,
  was      smallint not null,                    -- its status when it was chosen
  fate     smallint,                             -- null: done, once the bulk has ended; 1: put off; 2: missed
  primary key (bulk_id, run_id)
);
create index bulk_run_off on bulk_run (bulk_id, run_id) where fate = 1;
