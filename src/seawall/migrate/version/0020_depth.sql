-- Weights of tenants, and how deep a queue may be. Null: nobody said.
alter table queue
  add column weights       jsonb,                              -- by tenant, as an app declares them
  add column weights_set   jsonb,                              -- by hand, each in place of the declared one
  add column depth_max     integer check (depth_max >= 1),     -- unfinished runs
  add column depth_max_set integer check (depth_max_set >= 0); -- by hand; 0: no bound, whatever is declared

-- Runs that aren't made yet, since their queue has as many as it may. Their events are held, of this cause.
create table deferred (
  event_id     uuid not null,
  workflow_id  integer not null,
  tenant       text not null,
  queue_id     smallint not null,
  shard        smallint not null,
  ticket       boolean not null,
  vt           bigint not null,                                -- they are made in this order
  day_base     bigint not null,                                -- of the run's id
  primary key (event_id, workflow_id)
);
create index deferred_next on deferred (queue_id, vt, event_id, workflow_id);

-- Runs that are held may be in hand still, and then count under their limits.
drop index run_admitted;
drop index run_admitted_too;
create index run_admitted on run ((keys[1])) where state in (0, 2, 9) and keys is not null;
create index run_admitted_too on run ((keys[2])) where state in (0, 2, 9) and keys[2] is not null;
