-- Events that run once more, at a rate, in queues beside those of their workflows.

-- Who serves that queue serves this one too. A replay's runs wait here, so that fresh ones don't wait behind them.
alter table queue add column beside smallint unique references queue (id);

create table replay (
  id         bigint generated always as identity primary key,
  selection  text not null,                      -- as it was written
  sources    text[],                             -- what it says: null is anything
  likes      text[],
  tenants    text[],
  states     smallint[],
  causes     smallint[],
  workflow   text,                               -- only this one; null: all that take new events of the type
  version    text,                               -- null: the one that takes new events
  rate       float8 not null,                    -- events a second, when it has risen to it
  ramp_s     float8 not null,
  state      text not null default 'running',    -- store.replay.State
  "first"    uuid not null,
  "last"     uuid not null,                      -- behind the last one: an event that came later isn't meant
  after      uuid not null,                      -- events up to here were seen to
  total      bigint not null,                    -- events that are meant, as they were counted at the beginning
  seen       bigint not null default 0,
  runs       bigint not null default 0,
  next_at    timestamptz not null default now(), -- when the next events may begin
  by         text not null,
  why        text not null,
  at         timestamptz not null default now(),
  ended_at   timestamptz
) with (fillfactor = 50);
create index replay_open on replay (id) where ended_at is null;

-- What a replay has begun: an event begins one run of a workflow in each.
create table replay_run (
  replay_id    bigint not null references replay (id),
  event_id     uuid not null,
  workflow_id  integer not null,
  run_id       bigint not null,
  primary key (replay_id, event_id, workflow_id)
);
