-- A store that was failed over to a replica which lagged, or put back from a copy, gives numbers and epochs that it gave
-- before, to others. Whoever remembers the lost ones must not take them for its own.

-- Which branch of its history the server writes: PostgreSQL counts it up at each promotion and recovery to a point in time. Where
-- there is no such number (a service with storage of its own), a promotion loses nothing, and one is as good as another.
create function store_timeline() returns integer language plpgsql volatile as $$
begin
  return ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::integer;
exception when feature_not_supported or insufficient_privilege or undefined_function then
  return 1;
end $$;

-- A lease counts only in the timeline in which it was taken.
alter table shard_lease add column timeline integer not null default 1;
update shard_lease set timeline = store_timeline();

-- The server's life that run_number is known to fit to, and since when. Any other one (another timeline, or only another start:
-- its files may be a copy) may have forgotten the newest numbers.
create table store_life (
  only_row    boolean primary key default true check (only_row),
  timeline    integer not null,
  started_at  timestamptz not null,              -- the server's start
  since       timestamptz not null default now()
);
insert into store_life (timeline, started_at) values (store_timeline(), pg_postmaster_start_time());

-- 0. What nextval('run_number') gives from then on, it never gave in any history: in a new life it first leaps over more
-- numbers than are given in hours. There is room for a million lives. Called in a subquery, so once for each statement.
create function run_number_base() returns bigint language plpgsql volatile as $$
declare
  here constant integer := store_timeline();
begin
  if not exists (select 1 from store_life where timeline = here and started_at = pg_postmaster_start_time()) then
    update store_life set timeline = here, started_at = pg_postmaster_start_time(), since = now()
    where (timeline, started_at) is distinct from (here, pg_postmaster_start_time());
    if found then
      perform setval('run_number', nextval('run_number') + 16777216);
    end if;
  end if;
  return 0;
end $$;
