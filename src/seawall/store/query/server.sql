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

-- name: examine_roles
-- doctor, by hand and at each start; pg_roles, pg_db_role_setting. As a session of each role in this database would
-- begin: what is set for a role wins over what is set for a database.
select r.rolname as role, (
    select split_part(c.given, '=', 2) from pg_db_role_setting s cross join unnest(s.setconfig) as c (given)
    where s.setrole in (0, r.oid) and s.setdatabase in (0, d.oid) and c.given like 'synchronous\_commit=%'
    order by s.setrole <> 0 desc, s.setdatabase <> 0 desc limit 1
) as setting
from pg_roles r join pg_database d on d.datname = current_database()
where r.rolname = any($1::text[])
