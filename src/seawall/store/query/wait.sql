-- name: lock_shapes
-- worker, before know_shape. Ids come in the order of commits then: routers look at the newest one alone.
select pg_advisory_xact_lock(7203002)

-- name: know_shape
-- worker, when an app first waits by these fields; the small table wait_shape. No row: there are $3 of this type already,
-- each of which costs something for each event, or $4 altogether.
with known as (
  select count(*) filter (where type = $1) as alike, count(*) as altogether from wait_shape
), made as (
  insert into wait_shape (type, fields)
  select $1, $2 from known where alike < $3 and altogether < $4
    and not exists (select 1 from wait_shape s where s.type = $1 and s.fields = $2)
  returning stamp
)
select stamp from made union all select stamp from wait_shape where type = $1 and fields = $2

-- name: batches
-- worker, after know_shape; no table, the locks that are held. Routers' transactions that are under way: each has its lock
-- on log_position from before its first statement reads anything until its end. Not by numbers of transactions or
-- snapshots: a batch may have read already, and have none of these yet.
select coalesce(array_agg(distinct virtualtransaction), '{}') from pg_locks
where locktype = 'relation' and relation = 'log_position'::regclass and mode = 'RowExclusiveLock' and granted
  and database = (select oid from pg_database where datname = current_database())

-- name: shapes_there
-- worker, first when it opens waits; the small table wait_shape.
select count(*) from wait_shape where stamp = any($1::uuid[])

-- name: lock_keys
-- worker before it opens or ends waits, router before it looks for them; no table. Whoever of the two comes second sees
-- what the first one wrote: a statement's snapshot is taken when it begins, so this is one of its own. Few, since the server
-- has room for some thousands altogether, and sorted, so that two can't wait in a circle; until the transaction's end, which the server brings about when its holder stands still.
select set_config('idle_in_transaction_session_timeout', '2000', true), count(pg_advisory_xact_lock(k))
from unnest($1::bigint[]) as k

-- name: open
-- worker, behind lock_keys; primary keys of shard_lease, run and wait. Opens waits that aren't there yet, and says how all
-- that were named stand. One whose lease is gone has no row. Collectors' clocks may be behind ours.
with asked as (
  select * from unnest($1::smallint[], $2::smallint[], $3::bigint[], $4::bigint[], $5::text[], $6::integer[], $7::bytea[],
                       $8::bigint[], $9::bigint[])
    as a (queue_id, shard, epoch, run_id, name, nth, key, lookback_us, timeout_us)
), clock as (
  select (extract(epoch from clock_timestamp()) * 1000000)::bigint as now_us,
         (select coalesce(max(behind_us), 0) from collector) as behind_us
), ours as materialized (
  select a.*
  from asked a
  join shard_lease s on s.queue_id = a.queue_id and s.shard = a.shard and s.epoch = a.epoch
  join run r on r.id = a.run_id
  where s.timeline = (select store_timeline())
  for key share of s
), marked as (
  update run r set listens = true from ours o where r.id = o.run_id and not r.listens
), opened as (
  insert into wait (run_id, name, nth, key, since_us, until_us)
  select o.run_id, o.name, o.nth, o.key, t.since_us, t.until_us
  from ours o cross join clock cross join lateral (
    select clock.now_us - clock.behind_us - o.lookback_us as since_us, clock.now_us + o.timeout_us as until_us
  ) t
  on conflict do nothing
  returning run_id, name, nth, key, until_us, event_id, over
), standing as (
  select w.run_id, w.name, w.nth, w.key, w.until_us, w.event_id, w.over
  from wait w join ours o on o.run_id = w.run_id and o.name = w.name and o.nth = w.nth
  union all
  select * from opened
)
select s.run_id, s.name, s.nth, s.key, s.until_us, s.event_id, s.over, clock.now_us
from standing s cross join clock

-- name: match
-- worker, behind open; primary keys of wait, correlation and run. Waits hear what came already: each the earliest event
-- under its key which its run was neither begun by nor has heard. Of several that would hear the same one, one does;
-- ``more`` says that the others have to be asked again.
with open as materialized (
  select w.run_id, w.name, w.nth, w.key, w.since_us, w.until_us, r.event_id as own_id
  from unnest($1::bigint[], $2::text[], $3::integer[]) as a (run_id, name, nth)
  join wait w on w.run_id = a.run_id and w.name = a.name and w.nth = a.nth
  join run r on r.id = w.run_id
  where w.event_id is null and not w.over
), first as materialized (
  select o.run_id, o.name, o.nth, c.event_id
  from open o cross join lateral (
    select c.event_id from correlation c
    where c.key = o.key and c.received_us between o.since_us and coalesce(o.until_us, 9223372036854775807)
      and c.event_id <> o.own_id
      and not exists (select 1 from wait h where h.run_id = o.run_id and h.event_id = c.event_id)
    order by c.received_us limit 1
  ) c
), chosen as materialized (
  select distinct on (run_id, event_id) run_id, name, nth, event_id from first order by run_id, event_id, name, nth
)
update wait w set event_id = c.event_id from chosen c
where w.run_id = c.run_id and w.name = c.name and w.nth = c.nth
returning w.run_id, w.name, w.nth, w.event_id, (select count(*) from first) > (select count(*) from chosen) as more

-- name: end_late
-- worker, behind match, for waits whose time is over and that no event ended; primary key of wait. They end only when all
-- that any log accepted before is routed, or $4 microseconds later at most. A log that nobody has told of for so long
-- holds up nothing, but makes it unsure. No row: it isn't over yet.
with clock as (
  select (extract(epoch from clock_timestamp()) * 1000000)::bigint as now_us,
         (select coalesce(max(behind_us), 0) from collector) as behind_us,
         (select coalesce(min(passed_us) filter (where seen_at > now() - $4::bigint * interval '1 microsecond'), 0)
          from log_progress) as passed_us,
         exists (select 1 from log_progress where seen_at <= now() - $4::bigint * interval '1 microsecond'
                                              and seen_at > now() - interval '1 day') as silent
)
update wait w set over = true
from unnest($1::bigint[], $2::text[], $3::integer[]) as a (run_id, name, nth) cross join clock c
where w.run_id = a.run_id and w.name = a.name and w.nth = a.nth and w.event_id is null and not w.over
  and (c.passed_us - c.behind_us >= w.until_us or c.now_us > w.until_us + $4::bigint)
returning w.run_id, w.name, w.nth, c.passed_us - c.behind_us < w.until_us or c.silent as unsure

-- name: heard
-- worker, for waits that an event ended; event by primary key.
select id, type, source, tenant, received_at, headers, body from event where id = any($1::uuid[])

-- name: note
-- router, behind lock_keys, once for each batch that has events which could be waited for; wait_listening, and
-- correlation_broad of those that somebody waits for. `between`, here and below: with `=` the order would be that of the primary
-- key as well, which is read from end to end for a key that few wait by while most of the table waits by another. Notes them, and returns the places (from 1) of those. `broad`: more runs
-- wait for it and for what came before it in the batch than $4, or some that its key's former events are for aren't told yet;
-- `hear_broad` ends their waits then, in this order.
with came as materialized (
  select c.key, c.received_us, c.event_id, c.place, w.waits,
         w.waits > 0 and (sum(w.waits) over (order by c.place) > $4
                          or exists (select 1 from correlation b where b.key = c.key and b.asked is not null)) as broad
  from unnest($1::bytea[], $2::bigint[], $3::uuid[]) with ordinality as c (key, received_us, event_id, place)
  cross join lateral (
    select count(*) as waits
    from (select 1 from wait w where w.key between c.key and c.key and w.event_id is null and not w.over
          order by w.key, w.run_id limit $4 + 1) as open
  ) w
), noted as (
  insert into correlation (key, received_us, event_id, asked)
  select key, received_us, event_id, case when broad then 0 end from came
  on conflict do nothing
)
select place, broad from came where waits > 0

-- name: hear
-- router, behind note, for events that few runs wait for, 1,000 at most; wait_listening, primary keys of run and wait. Ends their waits: of
-- each the earliest event; an event ends one wait of a run. ``more``: as in match. Runs are locked first, in the order of
-- their ids, as a flush does that ends some of them and their waits.
with came as (
  select * from unnest($1::bytea[], $2::bigint[], $3::uuid[]) as c (key, received_us, event_id)
), first as materialized (
  select distinct on (w.run_id, w.name, w.nth) w.run_id, w.name, w.nth, c.event_id
  from came c cross join lateral (
    select * from wait w where w.key between c.key and c.key and w.event_id is null and not w.over
    order by w.key, w.run_id limit 1001
  ) w
  where c.received_us >= w.since_us and (w.until_us is null or c.received_us <= w.until_us)
    and not exists (select 1 from wait o where o.run_id = w.run_id and o.event_id = c.event_id)
    and not exists (select 1 from run r where r.id = w.run_id and r.event_id = c.event_id)
  order by w.run_id, w.name, w.nth, c.received_us
), chosen as materialized (
  select distinct on (run_id, event_id) run_id, name, nth, event_id from first order by run_id, event_id, name, nth
), locked as materialized (
  select c.run_id, c.name, c.nth, c.event_id from chosen c join run r on r.id = c.run_id order by c.run_id for update of r
), ended as (
  update wait w set event_id = l.event_id from locked l
  where w.run_id = l.run_id and w.name = l.name and w.nth = l.nth
  returning w.run_id
)
select distinct run_id, (select count(*) from first) > (select count(*) from chosen) as more from ended

-- name: broad
-- router.broadcast, each second; correlation_broad, which is empty mostly. A key whose events very many runs wait for.
select key from correlation where asked is not null order by received_us, event_id limit 1

-- name: hear_broad
-- router.broadcast, behind lock_keys; correlation_broad, wait_listening, primary keys of run and wait. Goes on with the key's
-- earliest event that not all have been asked for: looks at the next $2 waits by the order of their runs, and ends those that it
-- is for. What was opened since it was noted has looked for itself. The last run of a full page may have waits beyond it,
-- so it comes with the next one.
with event as materialized (
  select key, received_us, event_id, asked from correlation
  where key = $1 and asked is not null order by received_us, event_id limit 1
), page as materialized (
  select w.run_id, w.name, w.nth,
         e.received_us >= w.since_us and (w.until_us is null or e.received_us <= w.until_us) as meant
  from event e cross join lateral (
    select * from wait w where w.key between e.key and e.key and w.event_id is null and not w.over and w.run_id > e.asked
    order by w.key, w.run_id limit $2
  ) w
), reached as materialized (
  select case when count(*) = $2 then greatest(min(run_id), max(run_id) - 1) end as run_id from page
), chosen as materialized (
  select distinct on (p.run_id) p.run_id, p.name, p.nth, e.event_id
  from page p cross join event e cross join reached u
  where p.meant and (u.run_id is null or p.run_id <= u.run_id)
    and not exists (select 1 from wait o where o.run_id = p.run_id and o.event_id = e.event_id)
  order by p.run_id, p.name, p.nth
), locked as materialized (
  select c.run_id, c.name, c.nth, c.event_id from chosen c join run r on r.id = c.run_id and r.event_id <> c.event_id
  order by c.run_id for update of r
), ended as (
  update wait w set event_id = l.event_id from locked l
  where w.run_id = l.run_id and w.name = l.name and w.nth = l.nth
  returning w.run_id
), asked as (
  update correlation c set asked = u.run_id from event e cross join reached u
  where c.key = e.key and c.received_us = e.received_us and c.event_id = e.event_id
)
select run_id from ended

-- name: wake_heard
-- router, behind hear, and worker, behind ends; primary key of run, and queue_now ($2, $3) once for each queue. One that waits becomes ready; one that is
-- in hand, or held, is only counted, which keeps it from being put away over it. So is one that failed and is tried again later:
-- its pause is for what it failed at. One that waited when it was held is ready when it is released. Waking puts no run before those
-- that waited meanwhile, and of one tenant's each goes a turn behind the other and behind those that were woken before ($4 to $6), as
-- in worker.wake. The clock is not asked for each run: those
-- that this statement has put before are dead weight in the index for each that follows, a thousand of them took a second.
with woken as materialized (
  select id, queue_id, tenant, workflow_id, state = 1 and not retrying as at_once from run where id = any($1::bigint[])
  order by id for update
), clock as materialized (
  select queue_id, queue_now(queue_id, $2, $3) as vt from (select distinct queue_id from woken where at_once) q
), placed as materialized (
  select o.id, o.tenant, o.at_once, c.vt as now, $2 * coalesce(w.priority, 0) as before,
         greatest(c.vt, b.vt) + 1000 * row_number() over (partition by o.queue_id, o.tenant, o.at_once order by o.id) as vt
  from woken o left join workflow w on w.id = o.workflow_id left join clock c on c.queue_id = o.queue_id
  left join unnest($4::smallint[], $5::text[], $6::bigint[]) as b (queue_id, tenant, vt)
    on b.queue_id = o.queue_id and b.tenant = o.tenant
)
update run r
set wakes = r.wakes + 1, state = case when not w.at_once then r.state when r.line is null then 0 else 3 end,
    run_after = case when w.at_once then null when r.state = 2 and r.run_after > now() and not r.retrying then now()
                     else r.run_after end,
    vt = case when w.at_once then greatest(r.vt, w.vt - w.before) else r.vt end
from placed w
where r.id = w.id
returning r.queue_id, r.vt, w.tenant, case when w.at_once then w.vt end as place, w.now

-- name: progress
-- router.housekeeping, each second; primary key of log_progress. Written each second while somebody waits, else each minute:
-- a log must be known before its router goes away.
insert into log_progress (log_id, passed_us)
select u.log_id, u.passed_us from unnest($1::uuid[], $2::bigint[]) as u (log_id, passed_us)
where exists (select 1 from wait)
   or not exists (select 1 from log_progress p where p.log_id = u.log_id and p.seen_at > now() - interval '1 minute')
on conflict (log_id) do update set passed_us = excluded.passed_us, seen_at = now()

-- name: prune
-- router.housekeeping, each second while there is anything; correlation_age.
delete from correlation where ctid = any (array(
  select ctid from correlation where received_us < $1 and asked is null order by received_us limit $2 for update skip locked
))

-- name: prune_ended
-- partition, each round, a stretch of the table after the other; primary keys of wait and run. Waits whose run has ended: one
-- that was opened in that very moment is not seen by the flush that ends its run, and what came of one of a run that was cancelled
-- stays while that can be undone (cancel.mark); primary key of run_done, by day.
with part as materialized (
  select run_id, name, nth from wait where run_id > $1 order by run_id limit $2
), gone as (
  delete from wait w using part p
  where w.run_id = p.run_id and w.name = p.name and w.nth = p.nth
    and (select r.id from run r where r.id = p.run_id) is null
    and not ((w.event_id is not null or w.over) and exists (
      select 1 from run_done d where d.id = p.run_id and d.status = 7 and d.finished_at > now() - interval '25 hours'))
  returning 1
)
select (select count(*) from gone) as gone, case when count(*) = $2 then max(run_id) else 0 end as next from part

-- name: shapes
-- router.catalogue, when its version changed; the small table wait_shape.
select type, fields from wait_shape order by id limit $1
