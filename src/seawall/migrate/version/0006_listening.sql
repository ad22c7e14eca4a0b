-- Runs that wait for an event.

-- By which fields of which type runs have waited: the router notes each such event under what it has there. The newest
-- row tells the router that there is one more; its stamp, that the store was put back meanwhile.
create table wait_shape (
  id      integer generated always as identity primary key,
  type    text not null,
  fields  text[] not null,                       -- JSON Pointers, sorted
  stamp   uuid not null default gen_random_uuid(),
  unique (type, fields)
);

-- Waits of unfinished runs, told apart as steps are.
create table wait (
  run_id    bigint not null,
  name      text not null,
  nth       integer not null,
  key       bytea not null,                      -- kernel.correlation: tenant, type, fields and their values
  since_us  bigint not null,                     -- events that were received from here on count, by their collector's clock
  until_us  bigint,                              -- … up to here; null: for ever
  event_id  uuid,                                -- the one that came
  over      boolean not null default false,      -- none came in time
  primary key (run_id, name, nth)
);
create index wait_open on wait (key) where event_id is null and not over;

-- Events by what they could be waited for, kept for as long as a wait may look back.
create table correlation (
  key          bytea not null,
  received_us  bigint not null,
  event_id     uuid not null,
  primary key (key, received_us, event_id)
);
create index correlation_age on correlation (received_us);

-- Up to when all that a log accepted is routed, by the router's clock. A wait ends without an event only behind it.
create table log_progress (
  log_id     uuid primary key,
  passed_us  bigint not null,
  seen_at    timestamptz not null default now()
) with (fillfactor = 50);

-- How often the run was woken, and whether it has ever opened a wait.
alter table run add column wakes integer not null default 0, add column listens boolean not null default false;
