-- name: server_version
-- migrate, once at start; no table.
select current_setting('server_version_num')::int / 10000

-- name: lock_schema
-- migrate, polled until it is free; an advisory lock. False: somebody else migrates.
select pg_try_advisory_lock(hashtext('seawall.migrate'))

-- name: unlock_schema
-- migrate, when it is done.
select pg_advisory_unlock(hashtext('seawall.migrate'))

-- name: schema_lock_holder
-- migrate, while it waits; pg_locks.
select a.pid, a.application_name, extract(epoch from now() - a.backend_start)::float8 as age_s
from pg_locks l join pg_stat_activity a using (pid) join pg_database d on d.oid = l.database
where d.datname = current_database() and l.locktype = 'advisory' and l.granted and l.objid = hashtext('seawall.migrate')::bigint & 4294967295
limit 1

-- name: create_version_table
-- migrate, each start.
create table if not exists schema_version (
  version     integer primary key,
  name        text not null,
  digest      text not null,                     -- sha256 of the file
  applied_at  timestamptz not null default now()
)

-- name: applied_versions
-- migrate, each start; primary key of schema_version.
select version, name, digest from schema_version order by version

-- name: record_version
-- migrate, in the transaction of the version itself.
insert into schema_version (version, name, digest) values ($1, $2, $3)
