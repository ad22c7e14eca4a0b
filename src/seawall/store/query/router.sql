-- name: ranges
-- router.drain, at start and after each doubt; primary key of log_position. At most ranges_max rows.
select part, segment, "offset", salt, end_segment, end_offset, starts from log_position where log_id = $1 order by part

-- name: begin_log
-- router.drain, when a log is seen for the first time; primary key of log_position.
insert into log_position (log_id, part, segment, "offset", salt)
select $1, 0, $2, $3, $4 where not exists (select 1 from log_position where log_id = $1) on conflict do nothing

-- name: lock_ranges
-- router.drain, before a log is begun anew; primary key of log_position. Waits for who moves them, so that a router of a
-- second copy that does it all the time can't keep this one from its own.
select segment, "offset", salt from log_position where log_id = $1 order by part for update

-- name: begin_anew
-- router.drain, when a log isn't what the position says; primary key of log_position. A part of its own, so that
-- whoever remembers an old one is fenced.
with gone as (delete from log_position where log_id = $1 returning part)
insert into log_position (log_id, part, segment, "offset", salt) select $1, max(part) + 1, $2, $3, $4 from gone

-- name: count_start
-- router.drain, before the first batch of a range since its loop started; primary key of log_position.
update log_position set starts = starts + 1
where log_id = $1 and part = $2 and segment = $3 and "offset" = $4
returning starts

-- name: clear_starts
-- router.drain, after a failure that it survived: then the record at the position is no killer; primary key.
update log_position set starts = 0 where log_id = $1 and part = $2 and segment = $3 and "offset" = $4

-- name: split_range
-- router.drain, when the newest range lags; primary key of log_position. No row: somebody else moved or split it.
with closed as (
  update log_position set end_segment = $5, end_offset = $6
  where log_id = $1 and part = $2 and segment = $3 and "offset" = $4 and end_segment is null
  returning part
)
insert into log_position (log_id, part, segment, "offset", salt)
select $1, part + 1, $5, $6, $7 from closed returning part

-- name: finish_range
-- router.commit, in the transaction of a range's last batch; primary key of log_position.
delete from log_position
where log_id = $1 and part = $2 and (end_segment, end_offset) <= (segment, "offset")

-- name: claim
-- router.commit, first in each batch; primary keys of log_position, dedupe and duplicate by day. Moves the position by
-- compare-and-set and claims the dedupe keys. At least one row: moved (0: somebody else owns the range), what the
-- catalogue is now, which of the events were collapsed earlier (a second copy of their record comes when the key may be
-- forgotten), and the holder of each key that an event outside this batch holds. "do update" in any case: that locks and returns the
-- holder, also one committed after our snapshot was taken. Sorted, so that two routers can't wait in a circle. A holder
-- that was received when our own window had passed is no holder to us: fresh records are read before a backlog, and one
-- from the backlog must not be taken for a copy of what came long after it. The key stays with the later event.
with moved as (
  update log_position set segment = $5, "offset" = $6, salt = $13, starts = 0, moved_at = now()
  where log_id = $1 and part = $2 and segment = $3 and "offset" = $4
    -- Whoever doesn't know of a split yet has read on into the newer range.
    and end_segment is not distinct from $14 and end_offset is not distinct from $15
  returning 1
),
claimed as (
  insert into dedupe as d (source_id, key_hash, event_id, body_hash, seen_at, expires_at)
  select u.source_id, u.key_hash, u.event_id, u.body_hash,
         to_timestamp(u.received_us::float8 / 1000000), to_timestamp((u.received_us + u.window_us)::float8 / 1000000)
  from unnest($7::uuid[], $8::bytea[], $9::uuid[], $10::bytea[], $11::bigint[], $12::bigint[])
    as u (source_id, key_hash, event_id, body_hash, received_us, window_us), moved
  order by u.source_id, u.key_hash
  on conflict (source_id, key_hash) do update set
    event_id   = case when d.expires_at <= excluded.seen_at then excluded.event_id else d.event_id end,
    body_hash  = case when d.expires_at <= excluded.seen_at then excluded.body_hash else d.body_hash end,
    seen_at    = case when d.expires_at <= excluded.seen_at then excluded.seen_at else d.seen_at end,
    expires_at = case when d.expires_at <= excluded.seen_at then excluded.expires_at else d.expires_at end
  returning d.source_id, d.key_hash, d.event_id, d.body_hash, d.seen_at
),
held_by_others as (
  select * from claimed c
  where not exists (select 1 from unnest($9::uuid[]) as own (id) where own.id = c.event_id)
    and not exists (
      select 1 from unnest($7::uuid[], $8::bytea[], $11::bigint[], $12::bigint[])
        as own (source_id, key_hash, received_us, window_us)
      where own.source_id = c.source_id and own.key_hash = c.key_hash
        and c.seen_at >= to_timestamp((own.received_us + own.window_us)::float8 / 1000000)
    )
),
collapsed as (
  select array_agg(own.id) as ids from unnest($16::uuid[]) as own (id)
  where (select d.id from duplicate d where d.id = own.id) is not null
)
select m.moved, v.workflows, v.sources, v.shapes, b.ids as collapsed, o.source_id, o.key_hash, o.event_id, o.body_hash
from (select count(*) as moved from moved) as m
cross join (
  select coalesce((
    select sum(hashtextextended(concat_ws(' ', w.id, w.name, w.queue_id, q.shards, w.priority, w.allowance, nullif(w.frozen, false), w.pattern), 0))
    from workflow w join queue q on q.id = w.queue_id where w.active
  ), 0)::text as workflows, (select version || ' ' || stamp from source_version) as sources,
    coalesce((select id || ' ' || stamp from wait_shape order by id desc limit 1), '') as shapes
) as v
cross join collapsed as b
left join held_by_others as o on true

-- name: keep
-- router.commit, second in each batch; primary keys of event, duplicate and ticket by day. All that a batch of records
-- becomes; a status has its cause in it. A record read again finds its rows there: runs are made only for events inserted now. A duplicate is looked for
-- by a subquery for each, since "not exists" would become a join that reads every event there is.
with kept as (
  insert into event (id, source_id, source, tenant, type, status, cause, reason, received_at, dedupe_key, headers, body,
                     target, peer, key_id, config_version, log_id, segment, "offset")
  select u.id, u.source_id, u.source, u.tenant, u.type, u.status & 15, nullif(u.status >> 4, 0), u.reason,
         to_timestamp(u.received_us::float8 / 1000000), u.dedupe_key, u.headers, u.body, u.target, u.peer, u.key_id,
         u.config_version, $1, u.segment, u."offset"
  from unnest($2::uuid[], $3::uuid[], $4::text[], $5::text[], $6::text[], $7::smallint[], $8::text[], $9::bigint[],
              $10::text[], $11::bytea[], $12::bytea[], $13::text[], $14::text[], $15::integer[], $16::bigint[],
              $17::bigint[], $18::bigint[])
    as u (id, source_id, source, tenant, type, status, reason, received_us, dedupe_key, headers, body, target, peer,
          key_id, config_version, segment, "offset")
  on conflict (id) do nothing
  returning id
),
begun as (
  insert into run (id, event_id, workflow_id, tenant, queue_id, shard, ticket, vt)
  select u.day_base + (select run_number_base()) + nextval('run_number'), u.event_id, u.workflow_id, u.tenant, u.queue_id, u.shard, u.ticket, u.vt
  from unnest($19::bigint[], $20::uuid[], $21::integer[], $22::text[], $23::smallint[], $24::smallint[],
              $25::boolean[], $26::bigint[])
    as u (day_base, event_id, workflow_id, tenant, queue_id, shard, ticket, vt)
  join kept on kept.id = u.event_id
  returning 1
),
put_off as (
  insert into deferred (day_base, event_id, workflow_id, tenant, queue_id, shard, ticket, vt)
  select u.* from unnest($43::bigint[], $44::uuid[], $45::integer[], $46::text[], $47::smallint[], $48::smallint[],
                         $49::boolean[], $50::bigint[])
    as u (day_base, event_id, workflow_id, tenant, queue_id, shard, ticket, vt)
  join kept on kept.id = u.event_id
  on conflict do nothing
),
lined as (
  insert into run (id, event_id, workflow_id, tenant, queue_id, shard, ticket, vt, state, keys, gates, line)
  select u.day_base + (select run_number_base()) + nextval('run_number'), u.event_id, u.workflow_id, u.tenant, u.queue_id, u.shard, u.ticket, u.vt, 3,
         array_remove(array[u.key_1, u.key_2], null), nullif(array_remove(array[u.gate_1, u.gate_2], null), '{}'),
         coalesce(u.key_1, u.gate_1)
  from unnest($31::bigint[], $32::uuid[], $33::integer[], $34::text[], $35::smallint[], $36::smallint[], $37::boolean[],
              $38::bigint[], $39::bytea[], $40::bytea[], $41::bytea[], $42::bytea[])
    as u (day_base, event_id, workflow_id, tenant, queue_id, shard, ticket, vt, key_1, key_2, gate_1, gate_2)
  join kept on kept.id = u.event_id
  returning 1
),
collapsed as (
  insert into duplicate (id, first_id)
  select u.id, u.first_id from unnest($27::uuid[], $28::uuid[]) as u (id, first_id)
  where (select e.id from event e where e.id = u.id) is null
  on conflict (id) do nothing
  returning 1
),
waiting as (
  insert into ticket (id, event_id)
  select u.id, u.event_id from unnest($29::uuid[], $30::uuid[]) as u (id, event_id)
  on conflict (id) do nothing
)
select (select count(*) from kept) as events, (select count(*) from begun) + (select count(*) from lined) as runs,
       (select count(*) from collapsed) as duplicates

-- name: never_first
-- router.commit, third in a batch that found some of its events stored already; primary key of event by day. Which of them
-- never were the first under their key: conflicts, dead letters and held ones (2, 3, 4) claim nothing by a second copy, but
-- those that are held for a full queue alone (cause 37).
select array_agg(own.id) as ids from unnest($1::uuid[]) as own (id)
where (select e.status in (2, 3, 4) and e.cause is distinct from 37 from event e where e.id = own.id)

-- name: notify
-- router.commit, last in each batch that woke somebody; no table. Sent by the commit.
select pg_notify(u.channel, u.payload) from unnest($1::text[], $2::text[]) as u (channel, payload)

-- name: note
-- router.commit, for records that could not be stored as they are; primary key of router_note. Its first time names the
-- dead letter of a record that has no id of its own, so that a second reading gives the same one.
insert into router_note as n (log_id, segment, "offset", tries, error)
select $1, u.segment, u."offset", u.tries, u.error
from unnest($2::bigint[], $3::bigint[], $4::integer[], $5::text[]) as u (segment, "offset", tries, error)
on conflict (log_id, segment, "offset") do update set tries = n.tries + excluded.tries, error = excluded.error
returning segment, "offset", (extract(epoch from at) * 1000)::bigint as at_ms

-- name: catalogue_version
-- router.catalogue, before it reads the rest; the small tables workflow and queue. The same text as in claim.
select coalesce((
  select sum(hashtextextended(concat_ws(' ', w.id, w.name, w.queue_id, q.shards, w.priority, w.allowance, nullif(w.frozen, false), w.pattern), 0))
  from workflow w join queue q on q.id = w.queue_id where w.active
), 0)::text as workflows, (select version || ' ' || stamp from source_version) as sources,
  coalesce((select id || ' ' || stamp from wait_shape order by id desc limit 1), '') as shapes

-- name: active_workflows
-- router.catalogue, when its version changed; the small tables workflow and queue.
select w.id, w.name, w.pattern, w.queue_id, q.shards, w.allowance, w.priority, w.frozen
from workflow w join queue q on q.id = w.queue_id where w.active order by w.id limit $1

-- name: revoked_secrets
-- router.catalogue, when its version changed; reads source_secret, a row per secret ever made, and source. Key 0 stands
-- for all that a removed source may have been sent with, its URL alone among them. The moment is by the slowest of the
-- collectors' clocks, since theirs is the one that says when an event came.
select source_id, key_id,
       (extract(epoch from ended_at) * 1000000)::bigint - (select coalesce(max(behind_us), 0) from collector) as revoked_us
from (
  select source_id, key_id, revoked_at as ended_at from source_secret where revoked_at is not null
  union all
  select id, 0, removed_at from source where removed_at is not null
) ended
order by ended_at desc limit $1

-- name: virtual_now
-- router.clock and worker.admission, each second; run_ready, one probe for each shard, and primary key of shard_lease. Of each queue the
-- place of the first that is ready, without its priority: $1 for each. Runs in hand are ready too, and one may take hours, or wait
-- for a version that nobody has: so no more than $2 before what was begun last. `begun`: of all shards, also when nothing is ready.
select q.id as queue_id,
       min(greatest(r.vt + $1 * w.priority::bigint, l.begun_vt - $2)) filter (where r.vt is not null) as vt,
       coalesce(max(l.begun_vt), 0) as begun,
       coalesce(q.weights, '{}') || coalesce(q.weights_set, '{}') as weights
from queue q
cross join lateral generate_series(0, q.shards - 1) as s (shard)
left join shard_lease l on l.queue_id = q.id and l.shard = s.shard::smallint
left join lateral (
  select vt, workflow_id from run where queue_id = q.id and shard = s.shard::smallint and state = 0 order by vt limit 1
) as r on true
left join workflow w on w.id = r.workflow_id
group by q.id

-- name: prune_dedupe
-- router.housekeeping, each second while there is anything; dedupe_expiry. Leaves rows that a batch works with.
delete from dedupe where ctid = any (array(
  select ctid from dedupe where expires_at < to_timestamp($1::bigint::float8 / 1000000)
  order by expires_at limit $2 for update skip locked
))
