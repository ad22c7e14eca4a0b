-- What watch knows and what it found.

-- How long a run of the queue may wait for its start. Null: nobody said.
alter table queue add column latency_ms bigint check (latency_ms >= 0);

-- Alerts that were raised, of all machines; those that aren't over have no end.
create table alert (
  id          bigint generated always as identity primary key,
  machine     text not null,
  role        text not null,
  name        text not null,
  labels      text not null,                     -- JSON, sorted by key
  summary     text not null,
  unaffected  text not null,
  cure        text not null,
  raised_at   timestamptz not null,
  cleared_at  timestamptz
);
create unique index alert_open on alert (machine, role, name, labels) where cleared_at is null;
create index alert_raised on alert (raised_at, id);

-- Who looks at what all machines share. It fences nothing: two that look would say the same thing twice, for a moment.
create table watch_lease (
  one         boolean primary key default true check (one),
  owner       uuid not null,
  expires_at  timestamptz not null
);
