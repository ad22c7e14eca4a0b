-- name: lines
-- console, when asked; the small table queue, and run_ready: of each queue at most $1 ready runs are counted.
select q.name, coalesce(q.reserved_set, q.reserved, 0) as reserved, coalesce(q.slots_max_set, q.slots_max) as slots_max,
       q.reserved_set is not null or q.slots_max_set is not null as by_hand, q.paused, q.shards,
       (select count(*) from (select 1 from run r where r.queue_id = q.id and r.state = 0 limit $1) ready) as ready,
       (select count(*) from shard_lease l where l.queue_id = q.id and l.shard >= 0 and l.expires_at > now()) as served,
       (select coalesce(array_agg(w.name || '@' || w.version order by w.name, w.version), '{}')
        from workflow w where w.queue_id = q.id and w.active) as workflows
from queue q order by q.name limit $2

-- name: lock
-- console, first of a change; unique (name).
select name, reserved, reserved_set, slots_max, slots_max_set, paused from queue where name = $1 for update

-- name: put
-- console, second of a change; unique (name).
update queue set reserved_set = $2, slots_max_set = $3, paused = $4 where name = $1
