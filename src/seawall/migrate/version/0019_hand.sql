-- Versions of workflows in people's hands.

-- What somebody chose of a workflow, in place of the newest version that workers have. Null: that one.
create table workflow_hand (
  name         text primary key,
  workflow_id  integer references workflow (id),
  frozen       boolean not null
);

-- As in workflow_hand, where the router reads it: new runs of it are held.
alter table workflow add column frozen boolean not null default false;

-- Runs that are held since their workflow was frozen when their event came.
create table run_frozen (
  name    text not null,
  run_id  bigint not null,
  primary key (name, run_id)
);
