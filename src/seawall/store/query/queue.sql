-- name: lines
-- console, when asked; the small tables queue and workflow, run_ready, run_line by the span of a workflow's keys
-- (kernel/allowance.py), deferred_next: of each queue at most $1 of each kind are counted.
select q.name, coalesce(q.reserved_set, q.reserved, 0) as reserved, coalesce(q.slots_max_set, q.slots_max) as slots_max,
       q.reserved_set is not null or q.slots_max_set is not null as by_hand, q.paused, q.shards,
       nullif(coalesce(q.depth_max_set, q.depth_max), 0) as depth_max,
       coalesce(q.weights, '{}') || coalesce(q.weights_set, '{}') as weights,
       (select count(*) from (
          select 1 from (
            select distinct substr(sha256(convert_to(octet_length(w.name) || ':' || w.name, 'UTF8')), 1, 4) as start
            from workflow w where w.queue_id = q.id and w.allowance is not null
          ) n join run r on r.state = 3 and r.line > n.start and r.line < n.start || '\xffffffffffffffffffffffffffffffffffffffff'
          order by r.line limit $1
        ) lined) as limited,
       (select count(*) from (select 1 from deferred d where d.queue_id = q.id order by d.vt limit $1) late) as held,
       (select count(*) from (select 1 from run r where r.queue_id = q.id and r.state = 0
                               order by r.shard, r.vt, r.id limit $1) ready) as ready,
       (select count(*) from shard_lease l where l.queue_id = q.id and l.shard >= 0 and l.expires_at > now()) as served,
       (select coalesce(array_agg(w.name || '@' || w.version order by w.name, w.version), '{}')
        from workflow w where w.queue_id = q.id and w.active) as workflows
from queue q order by q.name limit $2

-- name: lock
-- console, first of a change; unique (name).
select name, reserved, reserved_set, slots_max, slots_max_set, paused, depth_max, depth_max_set,
       coalesce(weights_set, '{}') as weights_set
from queue where name = $1 for update

-- name: put
-- console, second of a change; unique (name).
update queue set reserved_set = $2, slots_max_set = $3, paused = $4, depth_max_set = $5, weights_set = $6::text::jsonb
where name = $1
