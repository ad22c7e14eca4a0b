-- name: identify
-- embedded, until a new or adopted server has proven to be ours; no table.
select current_setting('seawall.instance', true) as instance, current_setting('data_directory') as data

-- name: probe
-- embedded, twice a second; no table.
select 1

-- name: database_exists
-- embedded, each start of the server; pg_database.
select exists (select 1 from pg_database where datname = $1)

-- name: create_database
-- embedded, once in the life of a data folder.
create database seawall

-- name: examine
-- doctor, by hand and at each start; pg_settings.
select name, setting from pg_settings
where name in ('fsync', 'full_page_writes', 'synchronous_commit', 'autovacuum', 'max_connections',
               'superuser_reserved_connections', 'server_version_num', 'port')
union all select 'recovering', pg_is_in_recovery()::text
union all select 'now_us', (extract(epoch from clock_timestamp()) * 1e6)::bigint::text
