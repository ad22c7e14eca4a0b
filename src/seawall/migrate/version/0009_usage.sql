-- Who holds slots, and how long runs wait and take: written by workers every few seconds, never for a single run, and kept
-- for a day.

-- Slot time of each minute. Beyond a worker's largest cells all tenants of a workflow are one, called ''.
create table slot_use (
  minute       timestamptz not null,
  queue_id     smallint not null,
  workflow_id  integer not null,
  tenant       text not null,
  slot_us      bigint not null,
  turns        bigint not null,                  -- times that a run gave its slot back: ended, failed, or put away
  primary key (minute, queue_id, workflow_id, tenant)
) with (fillfactor = 50);

-- A few runs of each queue and moment, drawn by each worker.
create table queue_sample (
  at         timestamptz not null default now(),
  queue_id   smallint not null,
  worker     uuid not null,
  starts_ms  bigint[] not null,                  -- from created to started, for the first time
  ends_ms    bigint[] not null,                  -- from created to its end
  primary key (at, queue_id, worker)
);
