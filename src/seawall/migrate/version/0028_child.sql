-- Runs that are cancelled when the run that began them ends before them.
create table run_child (
  parent_id  bigint not null,
  run_id     bigint not null,
  primary key (parent_id, run_id)
);
