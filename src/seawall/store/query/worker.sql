-- name: steady_plans
-- worker, once for each connection that refills or flushes. Planning one flush costs half as much as running it, so the plan
-- is made once, and must not depend on how large the tables were then: a plan from the first minute would scan all of
-- `step` in each flush. With these off every table is reached by its index, from the few rows that we name.
set plan_cache_mode = force_generic_plan;
set enable_seqscan = off;
set enable_bitmapscan = off;
set enable_hashjoin = off;
set enable_mergejoin = off

-- name: lock_registration
-- worker, at start: two apps that register at once would both think theirs is the newest version.
select pg_advisory_xact_lock(7203001)

-- name: register_queues
-- worker, at start; unique (name). An app that says nothing of a queue leaves it as another one has declared it.
insert into queue (name, reserved, slots_max, latency_ms, depth_max, weights)
select * from unnest($1::text[], $2::integer[], $3::integer[], $4::bigint[], $5::integer[], $6::jsonb[])
on conflict (name) do update
set reserved = coalesce(excluded.reserved, queue.reserved), slots_max = coalesce(excluded.slots_max, queue.slots_max),
    latency_ms = coalesce(excluded.latency_ms, queue.latency_ms),
    depth_max = coalesce(excluded.depth_max, queue.depth_max), weights = coalesce(excluded.weights, queue.weights)
where (excluded.reserved, excluded.slots_max, excluded.latency_ms, excluded.depth_max, excluded.weights)
      is distinct from (queue.reserved, queue.slots_max, queue.latency_ms, queue.depth_max, queue.weights)

-- name: queue_rules
-- worker, each second; the small tables queue and workflow, unique (queue_id) of drain. Those beside these, too. Limited are
-- workflows whose runs may stand in lines.
select q.id, q.name, coalesce(q.reserved_set, q.reserved, 0) as reserved, coalesce(q.slots_max_set, q.slots_max) as slots_max,
       q.paused, q.shards, d.rate,
       array(select distinct w.name from workflow w where w.queue_id = q.id and w.allowance is not null) as limited
from queue q left join drain d on d.queue_id = q.id
where q.id = any($1::smallint[]) or q.beside = any($1::smallint[])

-- name: register_leases
-- worker, at start; primary key. One lease for each shard, and -1 for the queue's suspects.
insert into shard_lease (queue_id, shard)
select q.id, s.shard from queue q cross join lateral generate_series(-1, q.shards - 1) s(shard)
where q.name = any($1::text[])
on conflict do nothing

-- name: register_workflows
-- worker, at start; unique (name, version). Rows are made in the order of declaration, so that the id says which of two
-- that came together is the newer.
insert into workflow (name, version, pattern, queue_id, active, allowance, priority)
select w.name, w.version, w.pattern, q.id, false, w.allowance, w.priority
from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::smallint[])
  with ordinality w(name, version, pattern, queue, allowance, priority, n)
join queue q on q.name = w.queue
order by w.n
on conflict (name, version) do update
set pattern = excluded.pattern, queue_id = excluded.queue_id, priority = excluded.priority,
    allowance = coalesce(excluded.allowance, case when workflow.allowance is null then null else '[]' end)
where (workflow.pattern, workflow.queue_id, workflow.priority, coalesce(workflow.allowance, '[]'))
      is distinct from (excluded.pattern, excluded.queue_id, excluded.priority, coalesce(excluded.allowance, '[]'))

-- name: say_worker
-- worker, at start; primary key of worker, unique (name, version). What this worker's app declares from now on; returns
-- what it declared before.
with former as (
  select workflow_ids from worker where owner = $1
), said as (
  insert into worker (owner, workflow_ids)
  select $1, coalesce(array_agg(id order by id), '{}') from workflow
  where (name, version) in (select * from unnest($2::text[], $3::text[]))
  on conflict (owner) do update set workflow_ids = excluded.workflow_ids, seen_at = now()
)
select coalesce((select workflow_ids from former), '{}')

-- name: see_worker
-- worker, every other second; primary key of worker. No row: the store was put back to a time before this worker.
update worker set seen_at = now(), tried = $2, failed = $3, broken = $4 where owner = $1

-- name: misplaced
-- worker, every other second; the small tables worker and workflow. Whether another version than the active one should
-- take new runs: of each name, the one that somebody chose by hand, while any worker has it, be it only away; else the
-- newest that a worker has which was seen in the last $1 seconds.
with live as (
  select distinct unnest(workflow_ids) as id from worker where seen_at > now() - $1 * interval '1 second'
), chosen as (
  select distinct on (w.name) w.name, w.id
  from workflow w left join live l on l.id = w.id left join workflow_hand h on h.workflow_id = w.id
  where l.id is not null or (h.name is not null and exists (select 1 from worker k where w.id = any(k.workflow_ids)))
  order by w.name, h.name is null, w.registered_at desc, w.id desc
)
select exists (select 1 from chosen c join workflow w on w.id = c.id where not w.active)
       or exists (select 1 from worker where seen_at < now() - $2 * interval '1 second')

-- name: forget_workers
-- worker, at start and when one is long gone; the small table worker. Returns what those had that were not seen for $1
-- seconds.
with gone as (
  delete from worker where seen_at < now() - $1 * interval '1 second' returning workflow_ids
)
select coalesce(array_agg(distinct u.id), '{}') from gone cross join lateral unnest(gone.workflow_ids) as u(id)

-- name: deactivate_removed
-- worker, at start, after say_worker and forget_workers; the small tables worker and workflow. Of those that a worker had,
-- which declares others now ($1) or is forgotten ($2): what no worker has any more, be it live or only away for a while, takes
-- no new runs. What an app leaves out is meant to be gone; the rest lapses, and watch says so. What is frozen doesn't: its new
-- runs are held, whoever is there.
update workflow w set active = false, lapsed_at = case when w.id = any($1::integer[]) then null else now() end
where w.active and (w.id = any($1::integer[]) or w.id = any($2::integer[]) and not w.frozen)
  and not exists (select 1 from worker k where w.id = any(k.workflow_ids))
returning w.name, w.version

-- name: deactivate_others
-- worker, before activate_chosen: the unique index allows one active version of a name at each moment. As misplaced.
with live as (
  select distinct unnest(workflow_ids) as id from worker where seen_at > now() - $1 * interval '1 second'
), chosen as (
  select distinct on (w.name) w.name, w.id
  from workflow w left join live l on l.id = w.id left join workflow_hand h on h.workflow_id = w.id
  where l.id is not null or (h.name is not null and exists (select 1 from worker k where w.id = any(k.workflow_ids)))
  order by w.name, h.name is null, w.registered_at desc, w.id desc
)
update workflow w set active = false, lapsed_at = null from chosen c
where w.name = c.name and w.id <> c.id and (w.active or w.lapsed_at is not null)

-- name: activate_chosen
-- worker, after deactivate_others; the small tables worker and workflow. As misplaced.
with live as (
  select distinct unnest(workflow_ids) as id from worker where seen_at > now() - $1 * interval '1 second'
), chosen as (
  select distinct on (w.name) w.name, w.id
  from workflow w left join live l on l.id = w.id left join workflow_hand h on h.workflow_id = w.id
  where l.id is not null or (h.name is not null and exists (select 1 from worker k where w.id = any(k.workflow_ids)))
  order by w.name, h.name is null, w.registered_at desc, w.id desc
)
update workflow w set active = true, lapsed_at = null, frozen = coalesce((select h.frozen from workflow_hand h where h.name = w.name), false)
from chosen c where w.id = c.id and not w.active
returning w.name, w.version

-- name: nobodys_workflows
-- worker, every other second; the small tables workflow and worker, run_ready for the suspects of what nobody has, and run_line
-- for the first of its lines.
-- $1: of these the worker has met runs, without having them.
select w.name, w.version from workflow w
where not exists (select 1 from worker k
                  where w.id = any(k.workflow_ids) and k.seen_at > now() - $2 * interval '1 second')
  and (w.id = any($1::integer[])
       or exists (select 1 from run r
                  where r.queue_id = w.queue_id and r.shard = -1 and r.state = 0 and r.workflow_id = w.id)
       or (w.allowance is not null and exists (
             select 1 from (
               select r.workflow_id
               from (values (substr(sha256(convert_to(octet_length(w.name) || ':' || w.name, 'UTF8')), 1, 4))) n (start)
               join run r on r.state = 3 and r.line > n.start and r.line < n.start || '\xffffffffffffffffffffffffffffffffffffffff'
               order by r.line limit 100
             ) l where l.workflow_id = w.id)))
order by w.name, w.version

-- name: nobodys_queues
-- worker, every other second; the small tables queue and shard_lease, and run_ready, one probe for each shard that nobody
-- leases. Queues with ready runs that no worker serves. In order, here and wherever few rows of a queue are wanted: when most of `run`
-- is of one queue, a plan without an order reads all of it to find none of another.
select q.name from queue q
where not exists (select 1 from shard_lease s where s.queue_id = q.id and s.shard >= 0 and s.expires_at > now())
  and exists (select 1 from generate_series(0, q.shards - 1) s(shard) cross join lateral (
        select 1 from run r where r.queue_id = q.id and r.shard = s.shard::smallint and r.state = 0
        order by r.vt, r.id limit 1) one)
order by q.name

-- name: known_workflows
-- worker, at start; unique (name, version).
select w.id, w.name, w.version, w.queue_id, q.name as queue
from workflow w join queue q on q.id = w.queue_id
where (w.name, w.version) in (select * from unnest($1::text[], $2::text[]))

-- name: left_behind
-- worker, at start; run_ready and run_due. Queues other than those served ($1) that hold unfinished runs: a workflow may
-- have moved to another queue since. `ours`: some of them are of workflows in $2.
select q.id, q.name,
       exists (select 1 from run r where r.queue_id = q.id and r.state = 0 and r.workflow_id = any($2::integer[]))
       or exists (select 1 from run r where r.queue_id = q.id and r.state = 1 and r.workflow_id = any($2::integer[]))
       as ours
from queue q
where q.id <> all($1::smallint[])
  and (exists (select 1 from generate_series(-1, q.shards - 1) s(shard) cross join lateral (
         select 1 from run r where r.queue_id = q.id and r.shard = s.shard::smallint and r.state = 0
         order by r.vt, r.id limit 1) one)
       or exists (select 1 from (select 1 from run r where r.queue_id = q.id and r.state = 1 order by r.run_after limit 1) two))

-- name: look_at_store
-- worker and router, each second, and first of all; the one row of store_life. What the server's history is called, once it is known to
-- give no number twice.
select store_history()

-- name: free_leases
-- worker, each second; primary key, the one row of store_life. Whoever lost it too. After a restart of the server, and after a
-- fail-over to another, every lease has expired: their owners, who are alive, get one term before anybody else may take one.
select queue_id, shard, owner is not null as orphan from shard_lease
where queue_id = any($1::smallint[]) and (shard = -1) = $4
  and (owner is null or owner = $2
       or (expires_at < now() and (select since from store_life) < now() - $3 * interval '1 second'))
order by queue_id, shard

-- name: peers
-- worker, each second; primary keys of worker and shard_lease, and the small table worker. Which queues this one serves, and
-- who else does.
with told as (
  update worker set serves = $2::smallint[], own = $3, serves_at = now() where owner = $1
)
select u.queue_id, w.own,
       (select count(*) from shard_lease s
        where s.queue_id = u.queue_id and s.shard >= 0 and s.owner = w.owner and s.expires_at > now()) as held
from worker w cross join lateral unnest(w.serves) as u(queue_id)
where w.owner <> $1 and w.serves_at > now() - $4 * interval '1 second' and u.queue_id = any($2::smallint[])

-- name: lock_lease
-- worker, first statement of a takeover; primary key. `for update` is what fences: it waits for each flush in flight (they
-- hold the row `for key share`), and whatever flushes later finds no row of its epoch.
select epoch, owner is not distinct from $3 as ours, owner is null or expires_at < now() as free,
       store_history() as history
from shard_lease where queue_id = $1 and shard = $2
for update

-- name: take_lease
-- worker, second statement of a takeover; primary keys of shard_lease and lease_taken. Numbers up to memo_below may have been run
-- before. Who had the shard under which epoch is kept of the last 500, to be told with what was done under it. In another
-- timeline of the server the epoch leaps, by chance: the next ones may have been given out, and be forgotten.
with taken as (
  update shard_lease s
  set owner = $3, epoch = epoch + case when s.timeline = t.here then 1 else 1048576 + floor(random() * 1e12)::bigint end, timeline = t.here,
      expires_at = now() + $4 * interval '1 second'
  from (select store_timeline() as here) t
  where queue_id = $1 and shard = $2
  returning epoch
), told as (
  insert into lease_taken as l (queue_id, shard, epoch, owner) select $1, $2, epoch, $3 from taken
  on conflict (queue_id, shard, epoch) do update set owner = excluded.owner, at = excluded.at
), forgotten as (
  delete from lease_taken where queue_id = $1 and shard = $2 and epoch <= (
    select epoch from lease_taken where queue_id = $1 and shard = $2 order by epoch desc offset 499 limit 1)
)
select epoch, coalesce(pg_sequence_last_value('run_number'::regclass), 0) as memo_below from taken

-- name: move_suspects
-- worker, third statement of a takeover of a shard; primary keys of refill and run. Its snapshot is younger than the lock,
-- so it sees what the last flush of the former owner did. What was taken under epoch $4 was in our own hands, and we live.
with gone as (
  delete from refill where queue_id = $1 and shard = $2 and epoch < $3 returning run_ids, epoch
), moved as (
  update run set shard = -1
  where id in (select unnest(run_ids) from gone where epoch is distinct from $4::bigint)
    and queue_id = $1 and shard = $2 and state = 0
  returning 1
)
select count(*) from moved

-- name: count_deaths
-- worker, third statement of a takeover of suspects; primary keys of refill and run. Each row was one run, alone. It
-- goes behind the others: they needn't wait for all of its deaths. Epoch $3 was our own.
with gone as (
  delete from refill where queue_id = $1 and shard = -1 and epoch < $2 returning run_ids, epoch
)
update run r
set deaths = deaths + 1,
    vt = greatest(r.vt, 1 + (select o.vt from run o where o.queue_id = $1 and o.shard = -1 and o.state = 0
                             order by o.vt desc, o.id desc limit 1))
where id in (select unnest(run_ids) from gone where epoch is distinct from $3::bigint)
  and queue_id = $1 and shard = -1 and state = 0

-- name: give_way
-- worker for suspects, when one has run for its turn; primary keys of shard_lease and run, run_ready. It goes behind all
-- others, when there are others.
with held as (
  select 1 from shard_lease s where queue_id = $1 and shard = -1 and epoch = $2
  and s.timeline = (select store_timeline()) for key share
), last as (
  select vt from run where queue_id = $1 and shard = -1 and state = 0 and id <> $3 order by vt desc, id desc limit 1
)
update run r set vt = greatest(r.vt, last.vt + 1)
from held, last where r.id = $3 and r.queue_id = $1 and r.shard = -1 and r.state = 0

-- name: end_dead
-- worker, last statement of a takeover of suspects; run_ready. At most 100: what is left ends with the next takeover. `kin`: as in
-- cancel.mark.
with dead as (
  delete from run where id in (
    select id from run where queue_id = $1 and shard = -1 and state = 0 and deaths >= $2 limit 100
  )
  returning id, event_id, workflow_id, tenant, attempt, deaths, ticket, created_at
), unheard as (
  delete from wait w using dead d where w.run_id = d.id
), done as (
  insert into run_done (id, event_id, workflow_id, tenant, status, cause, attempt, error, created_at)
  select id, event_id, workflow_id, tenant, 8, 4, attempt + 1,
         'the process that ran it died ' || deaths || ' times while it was alone in it', created_at
  from dead
  on conflict do nothing
)
select id, event_id, ticket, exists (select 1 from run_child) as kin from dead

-- name: renew_leases
-- worker, each second; primary key. Also when it has expired: what counts is that nobody took it.
update shard_lease s
set expires_at = now() + $5 * interval '1 second', begun_vt = greatest(s.begun_vt, l.begun_vt)
from unnest($1::smallint[], $2::smallint[], $3::bigint[], $6::bigint[]) l(queue_id, shard, epoch, begun_vt)
where s.queue_id = l.queue_id and s.shard = l.shard and s.epoch = l.epoch and s.owner = $4
  and s.timeline = (select store_timeline())
returning s.queue_id, s.shard

-- name: release_leases
-- worker, at its stop, after its last flush, and when it gives a shard up; primary keys. Its refill rows go, so that nobody
-- is suspected. Who wants them looks at once: their new runs wait for that. $5: the channel; null: nobody is told. One payload has room
-- for a thousand queues.
with mine as materialized (
  select s.queue_id, s.shard, s.epoch
  from shard_lease s
  join unnest($1::smallint[], $2::smallint[], $3::bigint[]) l(queue_id, shard, epoch) using (queue_id, shard, epoch)
  where s.owner = $4
  for update of s
), freed as (
  update shard_lease s set owner = null, expires_at = '-infinity'
  from mine m where s.queue_id = m.queue_id and s.shard = m.shard
  returning s.queue_id
), cleared as (
  delete from refill r using mine m where r.queue_id = m.queue_id and r.shard = m.shard and r.epoch = m.epoch
)
select pg_notify($5, string_agg(queue_id::text, ',')) from (select distinct queue_id from freed limit 1000) f
having count(*) > 0 and $5::text is not null

-- name: leave
-- worker, last at its stop; primary key of worker. Others needn't leave it its share of the shards any more, and look at once. $2: as in
-- release_leases.
with said as materialized (
  select owner, serves from worker where owner = $1 and serves <> '{}' for update
), gone as (
  update worker w set serves = '{}' from said s where w.owner = s.owner
)
select pg_notify($2, array_to_string(serves[1:1000], ',')) from said where $2::text is not null

-- name: refill
-- worker; run_ready for each shard, event by primary key. Queues share $13 slots evenly, beyond those kept for each. One statement reads what is ready behind each shard's cursor and
-- commits the refill row that makes these runs suspects if this process dies. The lease row is held only when there is
-- something to commit, so that an idle poll writes nothing.
with lease as (
  select * from unnest($1::smallint[], $2::smallint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[],
                       $9::bigint[], $11::bigint[], $12::bigint[], $15::bigint[], $16::bigint[])
    l(queue_id, shard, epoch, number, vt, id, most, kept, room, until_vt, until_id)
), scanned as materialized (
  select l.queue_id, l.shard, l.kept, l.room,
         row_number() over (partition by l.queue_id order by r.vt, r.id) as place,
         r.id, r.event_id, r.workflow_id, r.attempt, r.ticket, r.vt,
         r.workflow_id = any($8::integer[]) and (r.keyed or r.workflow_id <> all($14::integer[])) as known, r.waits, r.wakes
  from lease l cross join lateral (
    select o.id, o.event_id, o.workflow_id, o.attempt, o.ticket, o.vt, o.waits, o.wakes, o.keys is not null as keyed
    from run o
    where o.queue_id = l.queue_id and o.shard = l.shard and o.state = 0
      and (o.vt, o.id) > (l.vt, l.id) and (o.vt, o.id) <= (l.until_vt, l.until_id)
      and o.id not in (select unnest($7::text::bigint[]))
    order by o.vt, o.id
    limit l.most
  ) r
  order by r.vt, r.id
), shared as materialized (
  select *, row_number() over (partition by place <= kept order by place - kept, queue_id) as turn
  from scanned where place <= room
), read as materialized (
  select s.*, e.id is not null as found, e.type, e.source, e.tenant, e.received_at, e.headers, e.body,
         sum(coalesce(octet_length(e.body), 0)) over (order by s.vt, s.id rows unbounded preceding) - coalesce(octet_length(e.body), 0) as before
  from shared s left join event e on e.id = s.event_id and s.known
  where s.place <= s.kept or s.turn <= $13
), picked as materialized (
  select queue_id, shard, id from read where known and before < $10
), held as materialized (
  select s.queue_id, s.shard, s.epoch, l.number
  from shard_lease s join lease l on l.queue_id = s.queue_id and l.shard = s.shard and l.epoch = s.epoch
  where exists (select 1 from picked) and s.timeline = (select store_timeline())
  for key share of s
), noted as (
  insert into refill (queue_id, shard, epoch, number, run_ids)
  select h.queue_id, h.shard, h.epoch, h.number, p.run_ids
  from (select queue_id, shard, array_agg(id) as run_ids from picked group by queue_id, shard) p
  join held h on h.queue_id = p.queue_id and h.shard = p.shard
)
select r.queue_id, r.shard, r.id, r.event_id, r.workflow_id, r.attempt, r.ticket, r.vt, r.known, r.found,
       r.type, r.source, r.tenant, r.received_at, r.headers, r.body, r.waits, r.wakes,
       (extract(epoch from clock_timestamp()) * 1000000)::bigint as now_us
from read r
where r.before < $10
  and (not r.known or exists (select 1 from held h where h.queue_id = r.queue_id and h.shard = r.shard))
order by r.vt, r.id

-- name: memos
-- worker, for runs that may have been run before; primary key of step, of each day, and of wait. Waits have no result: those that
-- ended are steps too, and come first as that.
select run_id, name, nth, result, failed from step where run_id = any($1::bigint[])
union all
select run_id, name, nth, null, false from wait where run_id = any($1::bigint[])

-- name: flush
-- worker; primary keys of shard_lease, step, run, run_done, reply, refill. All of it or nothing: when one of the leases is
-- of another epoch by now, or the server in another timeline, `guard` has no row and nothing is written. Everything may be repeated under the same epoch: a
-- flush whose answer was lost is simply sent again. Numbers come as text ('{1,2}'): the driver spends half a microsecond
-- on each element of an array of numbers, the server a tenth of that. Arrays are unnested side by side in a select list:
-- in `from` each of them would go through a tuple store of its own. An end's status has its cause in it (kernel/cause.py).
-- A run that was held or cancelled while it was in hand stays so when it is put away, and needn't wait when it is released if it was
-- woken meanwhile. One that nobody can have in hand has a
-- moment in `run_after`, unless it is ready: who releases, moves or counts held ones goes by that.
--
-- Runs that may have open waits ($33) are locked first, in the order of their ids, as a router does with those that an event
-- is for: the rest of the statement takes them in its own order, and the two would wait in a circle.
--
-- It is sent the first time without each line `on conflict do nothing` (store/flush.py): looking for a conflict before
-- each row and confirming the row after it are a quarter of a flush, and there can be one only when it is sent again.
with named as (
  select * from unnest($1::text::smallint[], $2::text::smallint[], $3::text::bigint[]) n(queue_id, shard, epoch)
), held as materialized (
  select s.queue_id, s.shard, s.epoch
  from shard_lease s join named n on n.queue_id = s.queue_id and n.shard = s.shard and n.epoch = s.epoch
  where s.timeline = (select store_timeline())
  for key share of s
), locked as materialized (
  select 1 from run where id = any($33::text::bigint[]) order by id for update
), guard as materialized (
  select 1 as held where (select count(*) from held) = cardinality($1::text::smallint[]) and (select count(*) from locked) >= 0
), kept as (
  insert into step (run_id, name, nth, result, failed, epoch, attempt, started_at)
  select u.run_id, u.name, u.nth, u.result, u.failed, u.epoch, u.attempt, to_timestamp(u.started_us / 1e6::float8)
  from guard cross join (
    select unnest($4::text::bigint[]) as run_id, unnest($5::text[]) as name, unnest($6::text::integer[]) as nth,
           unnest($7::bytea[]) as result, unnest($8::text::boolean[]) as failed, unnest($9::text::bigint[]) as epoch,
           unnest($10::text::smallint[]) as attempt, unnest($11::text::bigint[]) as started_us
  ) u
  on conflict do nothing
  returning 1
), ended as (
  delete from run r
  using guard, (
    select unnest($12::text::bigint[]) as id, unnest($13::text::smallint[]) as status,
           unnest($14::text::smallint[]) as attempt, unnest($15::bytea[]) as result, unnest($16::text[]) as error,
           unnest($17::text::bigint[]) as started_us
  ) u
  where r.id = u.id
  returning r.id, r.event_id, r.workflow_id, r.tenant, r.created_at, r.began_at, r.listens, u.status, u.attempt, u.result,
            u.error, u.started_us
), unheard as (
  delete from wait w using ended e where e.listens and w.run_id = e.id
), done as (
  insert into run_done (id, event_id, workflow_id, tenant, status, cause, attempt, result, error, created_at, began_at,
                        started_at)
  select id, event_id, workflow_id, tenant, status & 15, nullif(status >> 4, 0), attempt, result, error, created_at, began_at,
         to_timestamp(started_us / 1e6::float8)
  from ended
  on conflict do nothing
), retried as (
  update run r
  set state = case when r.state in (2, 9) then r.state when r.wakes > u.wakes and not u.failed then 0 else 1 end,
      attempt = u.attempt, waits = u.waits,
      run_after = case when r.state in (2, 9) or r.wakes <= u.wakes or u.failed
                       then now() + u.delay_ms * (r.wakes <= u.wakes or u.failed)::integer * interval '1 millisecond' end,
      retrying = u.failed,
      began_at = coalesce(r.began_at, to_timestamp(nullif(u.started_us, 0) / 1e6::float8))
  from guard, unnest($18::text::bigint[], $19::text::smallint[], $20::text::bigint[], $30::text::integer[],
                     $31::text::integer[], $32::text::boolean[], $34::text::bigint[])
    u(id, attempt, delay_ms, waits, wakes, failed, started_us)
  where r.id = u.id and (r.attempt < u.attempt or r.waits < u.waits)
), forgotten as (
  delete from step s using guard, unnest($18::text::bigint[], $32::text::boolean[]) u(id, failed)
  where u.failed and s.run_id = u.id and s.failed
), replied as (
  insert into reply (event_id, run_id, status, content_type, body)
  select u.event_id, u.run_id, u.status, u.content_type, u.body
  from guard cross join unnest($21::uuid[], $22::text::bigint[], $23::text::smallint[], $24::text[], $25::bytea[])
    u(event_id, run_id, status, content_type, body)
  on conflict (event_id) do nothing
), cleared as (
  delete from refill f
  using guard, unnest($26::text::smallint[], $27::text::smallint[], $28::text::bigint[], $29::text::bigint[]) u(queue_id, shard, epoch, number)
  where f.queue_id = u.queue_id and f.shard = u.shard and f.epoch = u.epoch and f.number = u.number
)
select (select array_agg(queue_id) from held) as queue_ids, (select array_agg(shard) from held) as shards,
       (select array_agg(epoch) from held) as epochs, (select count(*) from kept) as steps

-- name: foreign_steps
-- worker, only when a flush kept fewer steps than it was given; primary key of each day. A row here is a broken fence.
select s.run_id, s.name, s.nth, s.epoch, u.epoch as mine
from unnest($1::bigint[], $2::text[], $3::integer[], $4::bigint[]) u(run_id, name, nth, epoch)
join step s on s.run_id = u.run_id and s.name = u.name and s.nth = u.nth and s.epoch <> u.epoch
limit 10

-- name: wake
-- worker, twice a second; run_due of each queue, primary key of run, and queue_now ($3, $4) once for each queue that has any. Queues
-- have equal parts, so that one with very many that are due delays none. Waking puts no run before those that waited meanwhile: it goes
-- a turn behind its queue's clock, and behind those of its tenant that were woken before it ($5 to $7: where they are by now), as a
-- stream of new runs does (kernel/placement.py). Else thousands of one tenant that are due at once go before all that others have
-- there. By queue and tenant, how many were woken, where the last of them is and the queue's clock.
with due as materialized (
  select d.id, d.queue_id, d.tenant, coalesce(w.priority, 0) as priority,
         row_number() over (partition by d.queue_id, d.tenant order by d.run_after, d.id) as turn
  from unnest($1::smallint[]) as q (queue_id) cross join lateral (
    select o.id, o.queue_id, o.tenant, o.workflow_id, o.run_after from run o
    where o.queue_id = q.queue_id and o.state = 1 and o.run_after <= now()
    order by o.run_after limit $2
    for update skip locked
  ) d left join workflow w on w.id = d.workflow_id
), clock as materialized (
  select queue_id, queue_now(queue_id, $3, $4) as vt from (select distinct queue_id from due) q
), placed as materialized (
  select d.id, d.queue_id, d.tenant, d.priority, c.vt as now, greatest(c.vt, b.vt) + 1000 * d.turn as vt
  from due d join clock c using (queue_id)
  left join unnest($5::smallint[], $6::text[], $7::bigint[]) as b (queue_id, tenant, vt)
    on b.queue_id = d.queue_id and b.tenant = d.tenant
), woken as (
  update run r
  set state = case when r.line is null then 0 else 3 end, run_after = null, vt = greatest(r.vt, p.vt - $3 * p.priority)
  from placed p where r.id = p.id
)
select queue_id, tenant, count(*) as runs, max(vt) as last, min(now) as now from placed group by queue_id, tenant

-- name: suspects
-- worker, each second; run_ready, run_cancelling. Queues with suspects of workflows in $3 that nobody runs: for others, and for
-- those that are paused, no process that we could start would help. One that is to be cancelled needs no more than that
-- somebody takes it over. A lease in the name of our own process for them doesn't count:
-- we know that it is dead.
select q.id, q.name
from queue q join unnest($1::smallint[], $2::uuid[]) as o(queue_id, owner) on o.queue_id = q.id
where (not q.paused
       and exists (select 1 from run r
                   where r.queue_id = q.id and r.shard = -1 and r.state = 0 and r.workflow_id = any($3::integer[]))
       or exists (select 1 from run r where r.queue_id = q.id and r.shard = -1 and r.state = 9))
  and not exists (select 1 from shard_lease s
                  where s.queue_id = q.id and s.shard = -1 and s.expires_at > now() and s.owner is distinct from o.owner)
