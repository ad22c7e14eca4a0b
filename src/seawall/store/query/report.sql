-- name: ping
-- watch, each /readyz of the whole; no table.
select 1

-- name: source_kind
-- console, before a secret is added: each kind has its own form of secret; unique source_name.
select kind from source where name = $1 and removed_at is null

-- name: events_floor
-- console, before events_page with a filter; primary key of event. The id down to which a page looks, none: to the end.
select id from event where id < $1 order by id desc offset $2 limit 1

-- name: events_page
-- console, GET /v1/events; primary key of event, from $1 down to $2. Checksums stop at $8 bytes of bodies.
select e.id, e.source_id, e.source, e.tenant, e.type, e.status, e.cause, e.reason, e.received_at, e.dedupe_key,
       octet_length(e.body) as bytes,
       case when sum(octet_length(e.body)) over (order by e.id desc) <= $8::bigint then sha256(e.body) end as sha256
from (
  select * from event
  where id < $1 and id >= $2
    and ($3::uuid[] is null or source_id = any ($3))
    and ($4::text[] is null or type like any ($4))
    and ($5::smallint[] is null or status = any ($5))
    and ($6::text[] is null or tenant = any ($6))
    and ($9::smallint[] is null or cause = any ($9))
  order by id desc limit $7
) e
order by e.id desc

-- name: source_events_floor
-- console, before source_events_page with a further filter; index event_source.
select id from event
where (source_id, id) < ($1, $2) and (source_id, id) >= ($1, '00000000-0000-0000-0000-000000000000')
order by source_id desc, id desc offset $3 limit 1

-- name: source_events_page
-- console, GET /v1/events of one source; index event_source, from $1 down to $2. Checksums stop at $8 bytes of bodies.
-- Written over both columns, so that a generic plan takes that index too, and doesn't read every other source's events.
select e.id, e.source_id, e.source, e.tenant, e.type, e.status, e.cause, e.reason, e.received_at, e.dedupe_key,
       octet_length(e.body) as bytes,
       case when sum(octet_length(e.body)) over (order by e.id desc) <= $8::bigint then sha256(e.body) end as sha256
from (
  select * from event
  where (source_id, id) < ($3, $1) and (source_id, id) >= ($3, $2)
    and ($4::text[] is null or type like any ($4))
    and ($5::smallint[] is null or status = any ($5))
    and ($6::text[] is null or tenant = any ($6))
    and ($9::smallint[] is null or cause = any ($9))
  order by source_id desc, id desc limit $7
) e
order by e.id desc

-- name: event
-- console, GET /v1/events/{id}; primary keys of duplicate and event. The first event's row for a duplicate's id.
select e.id, d.first_id, e.source_id, e.source, e.tenant, e.type, e.status, e.cause, e.reason, e.received_at, e.routed_at,
       e.dedupe_key, octet_length(e.body) as bytes, sha256(e.body) as sha256, e.headers, e.target, e.peer, e.key_id,
       e.config_version, e.log_id, e.segment, e."offset", p.run_id as reply_run, p.status as reply_status,
       octet_length(p.body) as reply_bytes, p.at as replied_at
from (values ($1::uuid)) as w(id)
left join duplicate d on d.id = w.id
join event e on e.id = coalesce(d.first_id, w.id)
left join reply p on p.event_id = e.id

-- name: event_body
-- console, GET /v1/events/{id}/raw; primary keys of duplicate and event.
select e.body
from (values ($1::uuid)) as w(id)
left join duplicate d on d.id = w.id
join event e on e.id = coalesce(d.first_id, w.id)

-- name: runs_floor
-- console, before runs_page with a filter; primary keys of run and run_done. The id down to which a page looks.
select greatest(
  (select id from run where id < $1 order by id desc offset $2 limit 1),
  (select id from run_done where id < $1 order by id desc offset $2 limit 1)
)

-- name: runs_page
-- console, GET /v1/runs; primary keys of run and run_done, from $1 down to $2. One snapshot: a run that ends meanwhile
-- comes once. A ready run is running when its id is in the refill row of a lease that lives. Of what it is narrowed by,
-- null is anything.
with live as materialized (
  select unnest(b.run_ids) as id
  from refill b join shard_lease l using (queue_id, shard, epoch) where l.expires_at > now()
)
select u.*, w.name as workflow, w.version, q.name as queue
from (
  (
    select r.id, r.event_id, r.workflow_id, r.queue_id, r.tenant, s.status, r.attempt, r.deaths, r.run_after,
           null::text as error, null::smallint as cause, r.created_at, null::timestamptz as started_at,
           null::timestamptz as finished_at
    from run r
    cross join lateral (
      select case when r.state = 0 and r.id in (select id from live) then 4::smallint else r.state end as status
    ) s
    where r.id < $1 and r.id >= $2
      and ($3::smallint[] is null or s.status = any ($3))
      and ($4::integer[] is null or r.workflow_id = any ($4))
      and ($5::uuid[] is null or (select e.source_id from event e where e.id = r.event_id) = any ($5))
      and ($6::text[] is null or r.tenant = any ($6))
      and ($8::text[] is null or (select e.type from event e where e.id = r.event_id) like any ($8))
      and ($9::smallint[] is null or false)
      and ($12::smallint[] is null or r.queue_id = any ($12))
      and r.event_id >= $10 and r.event_id < $11
    order by r.id desc limit $7
  )
  union all
  (
    select d.id, d.event_id, d.workflow_id, null, d.tenant, d.status, d.attempt, 0, null, left(d.error, 500),
           d.cause, d.created_at, d.started_at, d.finished_at
    from run_done d
    where d.id < $1 and d.id >= $2
      and ($3::smallint[] is null or d.status = any ($3))
      and ($4::integer[] is null or d.workflow_id = any ($4))
      and ($5::uuid[] is null or (select e.source_id from event e where e.id = d.event_id) = any ($5))
      and ($6::text[] is null or d.tenant = any ($6))
      and ($8::text[] is null or (select e.type from event e where e.id = d.event_id) like any ($8))
      and ($9::smallint[] is null or d.cause = any ($9))
      and ($12::smallint[] is null or d.workflow_id in (select id from workflow where queue_id = any ($12)))
      and d.event_id >= $10 and d.event_id < $11
    order by d.id desc limit $7
  )
) u
left join workflow w on w.id = u.workflow_id
left join queue q on q.id = coalesce(u.queue_id, w.queue_id)
order by u.id desc
limit $7

-- name: runs_of_event
-- console, an event's own runs; run_event, and run_done_event of the event's own day ($2 to $3).
with live as materialized (
  select unnest(b.run_ids) as id
  from refill b join shard_lease l using (queue_id, shard, epoch) where l.expires_at > now()
)
select u.*, w.name as workflow, w.version, q.name as queue
from (
  select r.id, r.event_id, r.workflow_id, r.queue_id, r.tenant,
         case when r.state = 0 and r.id in (select id from live) then 4::smallint else r.state end as status,
         r.attempt, r.deaths, r.run_after, null::text as error, null::smallint as cause, r.created_at,
         null::timestamptz as started_at, null::timestamptz as finished_at
  from run r where r.event_id = $1
  union all
  select d.id, d.event_id, d.workflow_id, null, d.tenant, d.status, d.attempt, 0, null, left(d.error, 500),
         d.cause, d.created_at, d.started_at, d.finished_at
  from run_done d where d.event_id = $1 and d.id between $2 and $3
) u
left join workflow w on w.id = u.workflow_id
left join queue q on q.id = coalesce(u.queue_id, w.queue_id)
where u.id < $4 and ($5::smallint[] is null or u.status = any ($5)) and ($6::integer[] is null or u.workflow_id = any ($6))
order by u.id desc
limit $7

-- name: run
-- console, GET /v1/runs/{id}; primary keys of run and run_done.
select u.*, w.name as workflow, w.version, q.name as queue
from (
  select r.id, r.event_id, r.workflow_id, r.queue_id, r.tenant,
         case when r.state = 0 and exists (
           select 1 from refill b join shard_lease l using (queue_id, shard, epoch)
           where b.queue_id = r.queue_id and b.shard = r.shard and r.id = any (b.run_ids) and l.expires_at > now()
         ) then 4::smallint else r.state end as status,
         r.attempt, r.deaths, r.run_after, null::text as error, null::smallint as cause, r.created_at,
         null::timestamptz as started_at, null::timestamptz as finished_at, null::bytea as result
  from run r where r.id = $1
  union all
  select d.id, d.event_id, d.workflow_id, null, d.tenant, d.status, d.attempt, 0, null, d.error, d.cause, d.created_at,
         d.started_at, d.finished_at, d.result
  from run_done d where d.id = $1
) u
left join workflow w on w.id = u.workflow_id
left join queue q on q.id = coalesce(u.queue_id, w.queue_id)

-- name: steps
-- console, GET /v1/runs/{id} and /v1/events/{id}/way, at most 100 runs; primary key of step. Large results are left out.
select run_id, name, nth, attempt, started_at, finished_at, octet_length(result) as bytes,
       case when octet_length(result) <= $2 then result end as result
from step where run_id = any ($1::bigint[])
order by run_id, started_at, name, nth
limit $3
