-- How far long steps have come that tell of themselves, until they have ended.
create table progress (
  run_id  bigint not null,
  name    text not null,                         -- as in step
  nth     integer not null,
  value   bytea,                                 -- JSON; null: it goes on, and says no more
  at      timestamptz not null,                  -- of its last heartbeat
  primary key (run_id, name, nth)
) with (fillfactor = 50);
