-- What people switch, and the timeline of everything that was changed.

-- Flags that somebody has set: console writes, roles read. One that isn't here is as declared in the code.
create table flag (
  name        text primary key,
  value       boolean,                           -- null: as declared
  rules       text not null default '[]',        -- JSON: [["tenant", "acme", false], …]
  version     bigint not null,                   -- grows with each change; a change names the one that it was made from
  changed_at  timestamptz not null default now(),
  changed_by  text not null,
  why         text not null
);

-- Only ever inserted into, and pruned by age. A change in the store is recorded in its own transaction; others are noted
-- on their machine first and merged, so ids say nothing about time.
create table change (
  id      bigint generated always as identity primary key,
  key     uuid not null unique,                  -- made where it happened: merging twice keeps one
  at      timestamptz not null,
  kind    text not null,                         -- seawall.kernel.seam.change.Kind
  what    text not null,
  by      text not null,
  before  text,
  after   text,
  why     text not null default ''
);
create index change_at on change (at, id);
create index change_what on change (kind, what, at, id);
-- User code is beside the worker's role: it must not be able to make up who set a flag. The owner isn't held by this.
alter table change enable row level security;
create policy worker_tells on change for insert with check (kind in ('version', 'start', 'stop', 'setting'));

-- What was applied before there was a timeline.
insert into change (key, at, kind, what, by, after)
select gen_random_uuid(), applied_at, 'migration', 'schema', 'seawall', version || ' ' || name from schema_version;
