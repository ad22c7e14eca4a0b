-- name: tables
-- restore, before it begins: an empty database has none; pg_class.
select count(*) from pg_class where relnamespace = 'public'::regnamespace and relkind in ('r', 'p')

-- name: skip_run_numbers
-- restore, once: runs of events accepted after the backup may have had the next numbers, and told them to others.
select setval('run_number', (select last_value from run_number) + $1)

-- name: has_lives
-- restore, once: a backup of an older schema knows of none; pg_class.
select to_regclass('public.store_life') is not null

-- name: end_life
-- restore, once: the one row of store_life, and shard_lease. The server that it is put back into enters a history of its own with
-- the first look at it, and no lease of before holds: workers of other machines may live that know what came after the backup.
with over as (update store_life set timeline = 0)
update shard_lease set timeline = 0

-- name: skip_source_versions
-- restore, once: a collector's snapshot may be of a later version than the backup's; it must read again.
update source_version set version = version + $1

-- name: has_flags
-- restore, once: a backup of an older schema has none; pg_class.
select to_regclass('public.flag') is not null

-- name: skip_flag_versions
-- restore, once: a change that was prepared before it must not fit by chance, nor a copy on disk look newer.
update flag set version = version + $1
