-- The first schema. Rooms that use a table are named beside it.
--
-- Ids. Event ids are UUID version 7, made at acceptance, so they carry their day: tables of events are partitioned by
-- range of that id, and uniqueness inside a partition collapses every second reading of the journal. Run ids are
-- (day of the event << 44) | number from a sequence: they carry the same day, and never come twice or go back.
-- Every partitioned table has a default partition, so that a wrong clock or an old spool can't stop the router.

-- ── Sources: cli and console write, collector reads ────────────────────────────────────────────────────────────────
create table source_version (only_row boolean primary key default true check (only_row), version bigint not null);
insert into source_version (version) values (1);

create table source (
  id          uuid primary key,
  name        text not null,
  kind        text not null,
  tenant      text not null default 'default',
  token_hash  bytea not null unique,             -- sha256 of the token: the token itself is shown once and never kept
  settings    text not null default '{}',        -- JSON, checked by seawall.collector.snapshot
  version     bigint not null,                   -- source_version at its last change
  created_at  timestamptz not null default now(),
  removed_at  timestamptz
);
create unique index source_name on source (name) where removed_at is null;

create table source_secret (
  source_id   uuid not null references source (id),
  key_id      integer not null,                  -- counts from 1 within a source
  sealed      bytea not null,                    -- AES-256-GCM under DIR/key, bound to source and key id
  created_at  timestamptz not null default now(),
  revoked_at  timestamptz,
  primary key (source_id, key_id)
);

create table collector (                          -- live collectors, and which configuration each one works with
  name        text primary key,
  version     bigint not null,
  seen_at     timestamptz not null default now()
);

-- ── Age: housekeeping ──────────────────────────────────────────────────────────────────────────────────────────────
-- The latest moment from which ages were counted, in microseconds since 1970: a clock that leaps moves it slowly.
create table retention (only_row boolean primary key default true check (only_row), reached_us bigint not null);
insert into retention (reached_us) values ((extract(epoch from now()) * 1000000)::bigint);

-- ── Journal positions: router ──────────────────────────────────────────────────────────────────────────────────────
-- What is still to be read of a log is a small set of ranges [segment/offset, end). The newest one has no end.
create table log_position (
  log_id        uuid not null,
  part          integer not null,                -- 0 is the first range; a higher one begins later in the log
  segment       bigint not null,
  "offset"      bigint not null,
  salt          bytea not null default '',       -- of the segment: tells it from another one under the same number
  end_segment   bigint,
  end_offset    bigint,
  starts        integer not null default 0,      -- router starts since this range last moved: a crash loop shows here
  moved_at      timestamptz not null default now(),
  primary key (log_id, part)
) with (fillfactor = 50);

-- ── Events: router writes, worker and console read ─────────────────────────────────────────────────────────────────
create table event (
  id             uuid not null,
  source_id      uuid not null,
  source         text not null,
  tenant         text not null,
  type           text not null,
  status         smallint not null,              -- 1 routed, 2 held, 3 conflict, 4 dead
  reason         text,                           -- why it is held, conflict or dead
  received_at    timestamptz not null,
  routed_at      timestamptz not null default now(),
  dedupe_key     text,
  headers        bytea not null,                 -- name NUL value NUL …, in order, without credentials
  body           bytea not null,                 -- exactly the bytes that came
  target         text not null,
  peer           text not null,
  key_id         integer not null,
  config_version bigint not null,
  log_id         uuid not null,
  segment        bigint not null,
  "offset"       bigint not null,
  primary key (id)
) partition by range (id);
create index event_source on event (source_id, id);
create table event_default partition of event default;

-- A collapsed copy: its sender got an id of its own, which leads to the first event.
create table duplicate (
  id        uuid not null,
  first_id  uuid not null,
  at        timestamptz not null default now(),
  primary key (id)
) partition by range (id);
create table duplicate_default partition of duplicate default;

create table dedupe (
  source_id   uuid not null,
  key_hash    bytea not null,                    -- first 16 bytes of sha256
  event_id    uuid not null,
  body_hash   bytea not null,                    -- first 16 bytes of sha256
  seen_at     timestamptz not null,              -- when event_id was received; windows compare receipts, not routing
  expires_at  timestamptz not null,
  primary key (source_id, key_hash)
);
create index dedupe_expiry on dedupe (expires_at);

-- Only repeated failures write here: the common path writes nothing extra.
create table router_note (
  log_id     uuid not null,
  segment    bigint not null,
  "offset"   bigint not null,
  tries      integer not null,
  error      text not null,
  at         timestamptz not null default now(),
  primary key (log_id, segment, "offset")
);

-- ── Workflows and queues: worker registers, router matches ─────────────────────────────────────────────────────────
create table queue (
  id      smallint generated always as identity primary key,
  name    text not null unique,
  shards  smallint not null default 4
);

create table workflow (
  id             integer generated always as identity primary key,
  name           text not null,
  version        text not null,
  pattern        text not null,                  -- an event type, or a pattern with * (fnmatch)
  queue_id       smallint not null references queue (id),
  active         boolean not null,               -- new runs take the active version; one per name
  registered_at  timestamptz not null default now(),
  unique (name, version)
);
create unique index workflow_active on workflow (name) where active;

-- ── Runs: router inserts, worker moves ─────────────────────────────────────────────────────────────────────────────
create sequence run_number;

-- Hot and small: unfinished work only. State: 0 ready, 1 waiting (for run_after), 2 held, 3 paused.
create table run (
  id           bigint primary key,
  event_id     uuid not null,
  workflow_id  integer not null,
  tenant       text not null,
  queue_id     smallint not null,
  shard        smallint not null,                -- -1: a suspect; it runs alone
  state        smallint not null default 0,
  attempt      smallint not null default 0,      -- failed attempts so far
  deaths       smallint not null default 0,      -- processes that died while this run was alone in them
  ticket       boolean not null default false,   -- somebody waits for the reply
  vt           bigint not null,                  -- virtual time: fair order, set at creation
  run_after    timestamptz,
  created_at   timestamptz not null default now()
) with (fillfactor = 90, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
create index run_ready on run (queue_id, shard, vt, id) where state = 0;
create index run_timer on run (run_after) where state = 1;
create index run_event on run (event_id);

create table run_done (
  id           bigint not null,
  event_id     uuid not null,
  workflow_id  integer not null,
  tenant       text not null,
  status       smallint not null,                -- 5 succeeded, 6 failed, 7 cancelled, 8 dead
  attempt      smallint not null,                -- attempts made
  result       bytea,                            -- JSON
  error        text,
  created_at   timestamptz not null,
  started_at   timestamptz,
  finished_at  timestamptz not null default now(),
  primary key (id)
) partition by range (id);
create index run_done_event on run_done (event_id);
create table run_done_default partition of run_done default;

create table step (
  run_id       bigint not null,
  name         text not null,
  nth          integer not null,                 -- occurrence of the name in the run, from 0
  result       bytea not null,                   -- JSON: the value, or for a failed step what it raised
  failed       boolean not null default false,   -- remembered until the run's next attempt, which tries it again
  epoch        bigint not null,                  -- of the lease under which it was written
  attempt      smallint not null default 1,
  started_at   timestamptz not null,
  finished_at  timestamptz not null default now(),
  primary key (run_id, name, nth)
) partition by range (run_id);
create table step_default partition of step default;

-- ── Leases: worker ─────────────────────────────────────────────────────────────────────────────────────────────────
create table shard_lease (
  queue_id    smallint not null,
  shard       smallint not null,                 -- -1: the queue's suspects
  owner       uuid,
  epoch       bigint not null default 0,
  expires_at  timestamptz not null default '-infinity',
  primary key (queue_id, shard)
) with (fillfactor = 50);

-- One row per refill, committed before its first run starts: after an unclean death these runs are suspects.
create table refill (
  queue_id  smallint not null,
  shard     smallint not null,
  epoch     bigint not null,
  number    bigint not null,
  run_ids   bigint[] not null,
  at        timestamptz not null default now(),
  primary key (queue_id, shard, epoch, number)
);

-- ── Tickets and replies: router and worker write, responder reads ──────────────────────────────────────────────────
create table ticket (
  id          uuid not null,                     -- the event id that the waiting request was given
  event_id    uuid not null,                     -- the event that runs: another one when the request was a duplicate
  created_at  timestamptz not null default now(),
  primary key (id)
) partition by range (id);
create table ticket_default partition of ticket default;

create table reply (
  event_id      uuid not null,
  run_id        bigint not null,
  status        smallint not null,               -- HTTP status
  content_type  text not null,
  body          bytea not null,
  at            timestamptz not null default now(),
  primary key (event_id)
) partition by range (event_id);
create table reply_default partition of reply default;
