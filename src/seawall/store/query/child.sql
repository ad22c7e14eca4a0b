-- name: start
-- worker, when a workflow begins another run, and when it looks how that stands; primary key of event, unique (name, version),
-- run_event, run_done_event of the event's day. The event's id says which run of which is meant: there is one of it, however
-- often it is asked for. It goes behind the first that is ready in its queue, as one by schedule does.
with takes as (
  select w.id, w.queue_id, q.shards from workflow w join queue q on q.id = w.queue_id
  where w.name = $2 and w.active and not w.frozen
), event as (
  insert into event (id, source_id, source, tenant, type, status, received_at, headers, body, target, peer, key_id,
                     config_version, log_id, segment, "offset")
  select $1, '00000000-0000-0000-0000-000000000000', ':run', $3, $4, 1, now(), $5, $6, '', '', 0, 0,
         '00000000-0000-0000-0000-000000000000', 0, 0
  from takes
  where (select e.id from event e where e.id = $1) is null
  on conflict (id) do nothing
  returning id
), begun as (
  insert into run (id, event_id, workflow_id, tenant, queue_id, shard, vt)
  select n.id, e.id, t.id, $3, t.queue_id, n.id % t.shards,
         coalesce((select o.vt + 1000 from run o
                   where o.queue_id = t.queue_id and o.shard = n.id % t.shards and o.state = 0
                   order by o.vt, o.id limit 1), 0)
  from event e cross join takes t cross join lateral (select $7::bigint + (select run_number_base()) + nextval('run_number') as id) n
  returning id, queue_id, vt
)
select id, 0::smallint as status, null::bytea as result, null::text as error, now() as created_at, now() as now
from begun
union all
select id, state, null, null, created_at, now() from run where event_id = $1
union all
select id, status, result, error, created_at, now() from run_done
where event_id = $1 and id between $7 and $7 + (1::bigint << 44) - 1
limit 1
