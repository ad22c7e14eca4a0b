-- Runs that wait for others of their key, or for their turn under a rate: state 3, outside of run_ready.

-- What a workflow declares (kernel/allowance.py); null: nothing, ever. Runs may stand in lines still when it is '[]'.
alter table workflow
  add column allowance text,
  add column priority smallint not null default 0;  -- how much sooner than others of its queue its runs begin, -10 to 10

alter table run
  add column keys bytea[],                       -- of its limits; null: nobody has looked yet
  add column gates bytea[],                      -- of the rates that it has to pass still
  add column line bytea;                         -- the one of them that it waits for, or waited for last; null: none ever again
create index run_line on run (line, workflow_id, vt, id) where state = 3;
-- Those that count under a limit: let in, and held or being cancelled since. Nothing else is counted, so that no count can leak.
create index run_admitted on run ((keys[1])) where state in (0, 2, 9) and keys is not null;
create index run_admitted_too on run ((keys[2])) where state in (0, 2, 9) and keys[2] is not null;

-- When the next run of a rate's key would begin, were all evenly spaced.
create table rate (
  key      bytea primary key,
  next_us  bigint not null
) with (fillfactor = 50);
