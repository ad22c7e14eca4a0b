-- name: versions
-- worker.admission, each second; the small tables workflow, queue and worker. Workflows of these names whose runs may be let
-- in: those that a live worker has, in queues that aren't paused (a rate would else let in, at one go, what it spread over
-- the pause). `leads`: of the workers that have it, the one with the lowest of the queue's shards looks through its lines.
select w.id, w.name, w.allowance, w.priority, w.queue_id, q.shards,
       (select b.id from queue b where b.beside = q.id) as beside,
       coalesce((select s.owner = $2 from shard_lease s join worker k on k.owner = s.owner and w.id = any(k.workflow_ids)
                 where s.queue_id = w.queue_id and s.shard >= 0 and s.expires_at > now()
                 order by s.shard limit 1), false) as leads
from workflow w join queue q on q.id = w.queue_id
where w.name = any($1::text[]) and w.allowance is not null and not q.paused
  and exists (select 1 from worker k where w.id = any(k.workflow_ids) and k.seen_at > now() - $3 * interval '1 second')

-- name: lines
-- worker.admission, each second; run_line, one probe for each line. Lines of a workflow's runs behind $1, in order.
with recursive found as (
  (select line from run where state = 3 and line > $1 and line < $2 order by line limit 1)
  union all
  select (select r.line from run r where r.state = 3 and r.line > f.line and r.line < $2 order by r.line limit 1)
  from found f where f.line is not null
)
select line from found where line is not null limit $3

-- name: lock
-- worker.admission, first of its transaction; no table. Whoever of two comes second sees whom the first one let in: a
-- statement's snapshot is taken when it begins, so this is one of its own. Until the transaction's end, which the server
-- brings about when its holder stands still. Plans as for a refill: from the few rows that we name, by their indexes.
select set_config('idle_in_transaction_session_timeout', '2000', true), set_config('enable_seqscan', 'off', true),
       set_config('enable_bitmapscan', 'off', true), set_config('enable_hashjoin', 'off', true),
       set_config('enable_mergejoin', 'off', true), set_config('plan_cache_mode', 'force_generic_plan', true),
       pg_advisory_xact_lock(7203003, $1)

-- name: first
-- worker.admission, behind lock; run_line. Of each line, the first that wait: at most $3 of each version and line.
select r.id, r.workflow_id, r.tenant, r.line, r.keys, r.gates, r.vt, r.queue_id
from unnest($1::bytea[]) as l (line) cross join lateral (
  select c.* from unnest($2::integer[]) as v (workflow_id) cross join lateral (
    select o.id, o.workflow_id, o.tenant, o.line, o.keys, o.gates, o.vt, o.queue_id
    from run o where o.line = l.line and o.workflow_id = v.workflow_id and o.state = 3
    order by o.vt, o.id limit $3
  ) c
  order by c.vt, c.id limit $3
) r
order by r.vt, r.id

-- name: standing
-- worker.admission, behind lock; run_admitted, run_admitted_too, primary key of rate. At most $2 of a key are counted.
-- One that is being cancelled, or was held as it had been let in (without a moment), may be in hand still.
select k.key, t.next_us, (extract(epoch from clock_timestamp()) * 1000000)::bigint as now_us,
       (select count(*) from (select 1 from run r where r.state in (0, 2, 9) and r.keys is not null and r.keys[1] = k.key
          and (r.state <> 2 or r.run_after is null) limit $2) one)
       + (select count(*) from (select 1 from run r where r.state in (0, 2, 9) and r.keys[2] is not null and r.keys[2] = k.key
          and (r.state <> 2 or r.run_after is null) limit $2) two) as admitted
from unnest($1::bytea[]) as k (key) left join rate t on t.key = k.key

-- name: held
-- worker.admission, when none of a key has room; run_admitted, run_admitted_too, and all of refill. Held ones that count and that no
-- refill row names: at most $2.
select r.id from unnest($1::bytea[]) as k (key) cross join lateral (
  select id from run r where r.state in (0, 2, 9) and r.keys is not null and r.keys[1] = k.key and r.state = 2 and r.run_after is null
  union
  select id from run r where r.state in (0, 2, 9) and r.keys[2] is not null and r.keys[2] = k.key and r.state = 2 and r.run_after is null
) r where r.id not in (select unnest(f.run_ids) from refill f) limit $2

-- name: put_down
-- worker.admission, behind held, when the refills of then have ended; primary key of run, and all of refill. Whom no refill row names
-- by now nobody has in hand: it counts no more, and stands in its line again when it is released.
with found as materialized (
  select id from run where id = any($1::bigint[]) and state = 2 and run_after is null
    and id not in (select unnest(f.run_ids) from refill f) order by id for update
)
update run r set run_after = now() from found f where r.id = f.id

-- name: settle
-- worker.admission, last of its transaction; primary keys of run and rate. Runs are locked in the order in which routers lock
-- those that they wake. One that was held, cancelled or let in meanwhile isn't in a line any more, and stays as it is. Who is
-- let in goes to where its workflow is by now (one of a replay stays beside it), and has waited: how long it took to begin says nothing of its queue. What was keyed by other rules is keyed anew by who meets it.
with chosen as materialized (
  select r.id, a.vt, a.queue_id, a.shards, a.line, a.what
  from run r join unnest($1::bigint[], $2::smallint[], $3::bigint[], $4::smallint[], $5::smallint[], $6::bytea[])
    as a (id, what, vt, queue_id, shards, line) on a.id = r.id
  where r.state = 3
  order by r.id
  for update of r
), admitted as (
  update run r set state = 0, gates = null, line = c.line, vt = c.vt, queue_id = c.queue_id, waits = r.waits + 1,
                   shard = case when r.shard < c.shards then r.shard else r.shard % c.shards end
  from chosen c where r.id = c.id and c.what = 1
  returning r.queue_id, r.shard, r.vt
), moved as (
  update run r set line = c.line from chosen c where r.id = c.id and c.what = 2
), anew as (
  update run r set state = 0, keys = null, gates = null, line = null from chosen c where r.id = c.id and c.what = 3
  returning r.queue_id, r.shard, r.vt
), spaced as (
  insert into rate (key, next_us) select * from unnest($7::bytea[], $8::bigint[]) as s (key, next_us)
  on conflict (key) do update set next_us = excluded.next_us
)
select queue_id, shard, vt from admitted union all select queue_id, shard, vt from anew

-- name: unkeyed
-- worker.admission, for runs that a refill met without keys; primary keys of run and event. At most $2 bytes of bodies, and
-- one more.
select id, workflow_id, tenant, found, body from (
  select r.id, r.workflow_id, r.tenant, e.id is not null as found, e.body,
         sum(coalesce(octet_length(e.body), 0)) over (order by r.id rows unbounded preceding)
           - coalesce(octet_length(e.body), 0) as before
  from run r left join event e on e.id = r.event_id
  where r.id = any($1::bigint[]) and r.state = 0 and r.keys is null
) u
where before < $2

-- name: line_up
-- worker.admission, behind unkeyed; primary keys of shard_lease and run. Only who holds the shard may: a run in its hands has
-- keys, or its worker knew of no rule. One without keys of its own stays ready.
with held as materialized (
  select s.queue_id, s.shard from shard_lease s
  join unnest($1::smallint[], $2::smallint[], $3::bigint[]) as l (queue_id, shard, epoch)
    on s.queue_id = l.queue_id and s.shard = l.shard and s.epoch = l.epoch
  where s.timeline = (select store_timeline())
  for key share of s
), given as (
  select * from unnest($4::bigint[], $5::bytea[], $6::bytea[], $7::bytea[], $8::bytea[]) as g (id, key_1, key_2, gate_1, gate_2)
)
update run r
set keys = array_remove(array[g.key_1, g.key_2], null), gates = nullif(array_remove(array[g.gate_1, g.gate_2], null), '{}'),
    line = coalesce(g.key_1, g.gate_1), state = case when coalesce(g.key_1, g.gate_1) is null then 0 else 3 end
from given g, held h
where r.id = g.id and r.state = 0 and r.keys is null and h.queue_id = r.queue_id and h.shard = r.shard
returning r.line, r.workflow_id

-- name: notify
-- worker.admission, for shards of other workers; no table.
select pg_notify($1, $2)

-- name: prune_rates
-- worker.admission, each minute; the table rate. Keys whose spacing has passed say nothing any more.
delete from rate where ctid = any (array(
  select ctid from rate where next_us < (extract(epoch from clock_timestamp()) * 1000000)::bigint limit $1 for update skip locked
))
