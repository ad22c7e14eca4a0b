-- name: bump_version
-- Sources, first in each change: its row lock puts changes in order. Primary key of source_version.
update source_version set version = version + 1, stamp = gen_random_uuid() where only_row returning version

-- name: notify_version
-- Sources, behind each change. A hint: collectors also poll.
select pg_notify('seawall_source', $1::text)

-- name: current_edition
-- Collector, each second; the one row of source_version.
select version, stamp::text, (extract(epoch from clock_timestamp()) * 1000000)::bigint as now_us from source_version

-- name: insert_source
-- Sources.add; unique source_name and token_hash. No row: the name is taken.
insert into source (id, name, kind, tenant, token_hash, settings, version)
values ($1, $2, $3, $4, $5, $6, $7)
on conflict (name) where removed_at is null do nothing
returning id

-- name: count_sources
-- Sources.add, behind bump_version; unique source_name, whose rows are those of live sources. At most one more than $1.
select count(*) from (select 1 from source where removed_at is null limit $1 + 1) s

-- name: insert_secret
-- Sources.add and rotate; primary key of source_secret.
insert into source_secret (source_id, key_id, sealed) values ($1, $2, $3)

-- name: lock_source
-- Sources.rotate, revoke and remove; unique source_name.
select id, kind from source where name = $1 and removed_at is null for update

-- name: touch_source
-- Sources.rotate and revoke; primary key of source.
update source set version = $2 where id = $1

-- name: next_key_id
-- Sources.rotate, under the source's row lock; primary key of source_secret.
select coalesce(max(key_id), 0) + 1 as key_id, count(*) filter (where revoked_at is null) as live
from source_secret where source_id = $1

-- name: revoke_secret
-- Sources.revoke, under the source's row lock; primary key of source_secret.
update source_secret set revoked_at = now() where source_id = $1 and key_id = $2 and revoked_at is null

-- name: live_keys
-- Sources.revoke, under the source's row lock; primary key of source_secret.
select count(*) from source_secret where source_id = $1 and revoked_at is null

-- name: remove_source
-- Sources.remove; primary key of source.
update source set removed_at = now(), version = $2 where id = $1

-- name: list_sources
-- Console, a page of live sources by name; unique source_name.
select s.id, s.name, s.kind, s.tenant, s.settings, s.version, s.created_at,
  array(select k.key_id from source_secret k where k.source_id = s.id and k.revoked_at is null order by k.key_id desc)
    as key_ids
from source s
where s.removed_at is null and s.name > $1
order by s.name limit $2

-- name: load_sources
-- Collector, when source_version moved: every live source, and those removed within 30 days so that their senders are
-- told 410; primary key of source. Those that were removed come last, and are what is left out beyond the bound.
select id, name, kind, tenant, token_hash, settings, version, removed_at is not null as removed
from source where removed_at is null or removed_at > now() - interval '30 days'
order by removed_at is not null, id limit $1

-- name: load_secrets
-- Collector, when source_version moved: live secrets of live sources, newest first; primary key of source_secret.
select k.source_id, k.key_id, k.sealed
from source_secret k join source s on s.id = k.source_id
where k.revoked_at is null and s.removed_at is null
order by k.source_id, k.key_id desc limit $1

-- name: seen_collector
-- Collector, each second; primary key of collector, whose few rows are all looked at: one that was killed is forgotten
-- when nothing of it can wait to be routed any more. Returns how fast its spool may be forwarded, if anybody says so.
with gone as (
  delete from collector where name = any (array(
    select name from collector where seen_at < now() - interval '30 days' and name <> $1 limit 100
    for update skip locked
  ))
)
insert into collector (name, version, seen_at, behind_us)
values ($1, $2, now(), $3)
on conflict (name) do update
set version = excluded.version, seen_at = excluded.seen_at, behind_us = excluded.behind_us
returning (select rate from drain where name = 'spool')

-- name: collectors_seen
-- Console, while a change is awaited; the table has one row for each collector.
select name, version from collector where seen_at > now() - $1::float8 * interval '1 second' order by name limit 1000

-- name: forget_collector
-- Collector, when it stops in order: nobody need wait for it; primary key of collector.
delete from collector where name = $1
