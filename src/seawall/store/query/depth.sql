-- name: depths
-- router.depth, each second or less often; the small tables queue and workflow, deferred_next; where a queue has a bound, its
-- runs are counted up to that and one more: run_ready, run_due, and run_line by the span of a workflow's keys
-- (kernel/allowance.py), each in its index's order. Runs that are held or being cancelled don't count.
with bounded as (
  select q.id, q.name, nullif(coalesce(q.depth_max_set, q.depth_max), 0) as depth_max,
         (select d.vt from deferred d where d.queue_id = q.id order by d.vt limit 1) is not null as waiting
  from queue q
)
select b.id, b.name, b.depth_max, b.waiting,
       case when b.depth_max is null then 0 else
         (select count(*) from (select 1 from run r where r.queue_id = b.id and r.state = 0
            order by r.shard, r.vt, r.id limit b.depth_max + 1) ready)
         + (select count(*) from (select 1 from run r where r.queue_id = b.id and r.state = 1 order by r.run_after
              limit b.depth_max + 1) due)
         + (select count(*) from (
              select 1 from (
                select distinct substr(sha256(convert_to(octet_length(w.name) || ':' || w.name, 'UTF8')), 1, 4) as start
                from workflow w where w.queue_id = b.id and w.allowance is not null
              ) n join run r on r.state = 3 and r.line > n.start and r.line < n.start || '\xffffffffffffffffffffffffffffffffffffffff'
              order by r.line limit b.depth_max + 1
            ) lined)
       end as runs
from bounded b where b.depth_max is not null or b.waiting

-- name: try_lock
-- router.depth, first of its transaction; no table. One router at a time: it must see all that another one has made of an event.
select pg_try_advisory_xact_lock(7203004)

-- name: make
-- router.depth, behind try_lock; deferred_next, primary keys of deferred and event by day. Makes the next runs of a queue,
-- without keys: whoever meets them looks for these; and held, where their workflow is frozen by now. An event whose last one is made isn't held any more (cause 37).
with next as materialized (
  select * from deferred where queue_id = $1 order by vt, event_id, workflow_id limit $2 for update
), gone as (
  delete from deferred d using next n where d.event_id = n.event_id and d.workflow_id = n.workflow_id
), made as (
  insert into run (id, event_id, workflow_id, tenant, queue_id, shard, ticket, vt, state)
  select n.day_base + (select run_number_base()) + nextval('run_number'), n.event_id, n.workflow_id, n.tenant, n.queue_id, n.shard, n.ticket, n.vt,
         case when w.frozen then 2 else 0 end
  from next n left join workflow w on w.id = n.workflow_id
  order by n.vt, n.event_id, n.workflow_id
  returning id, workflow_id, state, vt
), frozen as (
  insert into run_frozen (name, run_id) select w.name, m.id from made m join workflow w on w.id = m.workflow_id
  where m.state = 2
), freed as (
  update event e set status = 1, reason = null, cause = null
  from (
    select distinct n.event_id from next n
    where not exists (select 1 from deferred o where o.event_id = n.event_id
                      and not exists (select 1 from next x where x.event_id = o.event_id and x.workflow_id = o.workflow_id))
  ) f
  where e.id = f.event_id and e.status = 2 and e.cause = 37
)
select count(*) as runs, min(vt) as vt from made
