-- name: load_flags
-- collector and router, each second; console, when asked. The tables flag and schema_version are small. One row at least.
select s.schema, f.name, f.value, f.rules, f.version, f.changed_at, f.changed_by, f.why
from (select coalesce(max(version), 0) as schema from schema_version) s left join flag f on true
order by f.name limit $1

-- name: claim_flag
-- Flags.put, first: two that set a flag for the first time meet here; primary key of flag.
insert into flag (name, version, changed_by, why) values ($1, 0, '', '') on conflict (name) do nothing

-- name: lock_flag
-- Flags.put, second; primary key of flag.
select name, value, rules, version, changed_at, changed_by, why from flag where name = $1 for update

-- name: update_flag
-- Flags.put, under the row's lock; primary key of flag.
update flag set value = $2, rules = $3, version = $4, changed_at = $5, changed_by = $6, why = $7 where name = $1

-- name: notify_flag
-- Flags.put, behind its commit. A hint: roles also poll.
select pg_notify('seawall_flag', $1::text)

-- name: unknown_source
-- Flags.put, of a rule that names one; unique source_name. True: there is no such source.
select not exists (select 1 from source where name = $1 and removed_at is null)

-- name: unknown_tenant
-- Flags.put, of a rule that names one; source is read to the first that fits. True: no source has this tenant.
select not exists (select 1 from source where tenant = $1 and removed_at is null)

-- name: tenants_of
-- console, for a preview; unique source_name.
select name, tenant from source where name = any($1::text[]) and removed_at is null limit $2
