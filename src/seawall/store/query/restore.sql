-- name: tables
-- restore, before it begins: an empty database has none; pg_class.
select count(*) from pg_class where relnamespace = 'public'::regnamespace and relkind in ('r', 'p')

-- name: skip_run_numbers
-- restore, once: runs of events accepted after the backup may have had the next numbers, and told them to others.
select setval('run_number', (select last_value from run_number) + $1)

-- name: skip_source_versions
-- restore, once: a collector's snapshot may be of a later version than the backup's; it must read again.
update source_version set version = version + $1

-- name: has_flags
-- restore, once: a backup of an older schema has none; pg_class.
select to_regclass('public.flag') is not null

-- name: skip_flag_versions
-- restore, once: a change that was prepared before it must not fit by chance, nor a copy on disk look newer.
update flag set version = version + $1
