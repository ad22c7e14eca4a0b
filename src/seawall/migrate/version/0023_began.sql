-- When a run began, and who had it in hand.

-- When a run began for the first time, of one that was put away since, or failed. Null: it began once, at started_at.
alter table run add column began_at timestamptz;
alter table run_done add column began_at timestamptz;

-- Who leased a shard under which epoch, of the last epochs: steps say the epoch that they were done under.
create table lease_taken (
  queue_id  smallint not null,
  shard     smallint not null,
  epoch     bigint not null,
  owner     uuid,
  at        timestamptz not null default now(),
  primary key (queue_id, shard, epoch)
);
