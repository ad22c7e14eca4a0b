-- name: lead
-- router.governor, each second; the one row of governor. Who may decide; its commit shows how long the store takes.
update governor set owner = $1, expires_at = clock_timestamp() + $2 * interval '1 second'
where owner = $1 or expires_at < clock_timestamp()
returning reserve

-- name: facts
-- router.governor, at the end of each window; the small table worker. Bytes that the server has ever logged, and what
-- live workers have seen since they started.
select pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::float8 as written, w.owner, w.tried, w.failed, w.broken
from (select 1) as one left join worker w on w.seen_at > now() - $1 * interval '1 second'

-- name: starts
-- router.governor, at the end of each window; primary key of queue_sample, rows of some seconds. How long nine of ten runs that
-- were drawn waited for their start, of the queue where it was worst by its target, or by $3 seconds. Queues that are
-- drained themselves don't count: what waits there is meant to.
select q.name, w.waited_s, coalesce(nullif(q.latency_ms, 0) / 1000.0, $3::float8)::float8 as allowed_s
from (
  select s.queue_id, percentile_cont(0.9) within group (order by ms) / 1000.0 as waited_s
  from queue_sample s cross join lateral unnest(s.starts_ms) as ms
  where s.at > now() - $1 * interval '1 second'
  group by s.queue_id having count(*) >= $2
) w join queue q on q.id = w.queue_id
where q.beside is null and not exists (select 1 from drain d where d.queue_id = q.id)
order by w.waited_s / coalesce(nullif(q.latency_ms, 0) / 1000.0, $3::float8) desc limit 1

-- name: drains
-- router.governor, at the end of each window, and console; the small table drain.
select d.name, d.rate, d.floor, d.goal, d.slope, d.revision, d.set_by, d.set_at, q.name as queue
from drain d left join queue q on q.id = d.queue_id order by d.name limit $1

-- name: steer
-- router.governor, at the end of each window; primary keys of governor and drain. Whoever lost the lead writes nothing,
-- and what was set by hand meanwhile stays.
with led as (
  update governor set act = $2, share = $3, said = $4, reserve = $5, decided_at = now() where owner = $1 returning 1
)
update drain d set rate = u.rate
from led, unnest($6::text[], $7::bigint[], $8::float8[]) as u (name, revision, rate)
where d.name = u.name and d.revision = u.revision and d.rate <> u.rate

-- name: decided
-- console, when asked; the one row of governor.
select act, share, said, reserve, decided_at, expires_at > now() as led from governor

-- name: keep
-- router.governor; primary key of drain. A drain that is there by itself, with bounds from the settings.
insert into drain (name, rate, floor, goal) values ($1, $3, $2, $3)
on conflict (name) do update set floor = excluded.floor, goal = excluded.goal, rate = least(drain.rate, excluded.goal)
where (drain.floor, drain.goal) is distinct from (excluded.floor, excluded.goal)

-- name: rate
-- whoever drains, each second; primary key of drain.
select rate from drain where name = $1

-- name: find_queue
-- console, first of a throttle; unique (name) of queue.
select q.id, d.rate, d.floor, d.goal, d.slope from queue q left join drain d on d.queue_id = q.id
where q.name = $1 for update of q

-- name: put
-- console, and who begins a replay; primary key of drain. A revision comes never again, also of one that was lifted meanwhile: the
-- governor remembers of the former one how far it had risen.
insert into drain (name, queue_id, rate, floor, goal, slope, set_by, revision)
values ($1, $2, $3, $4, $5, $6, $7, (extract(epoch from clock_timestamp()) * 1000000)::bigint)
on conflict (name) do update
set rate = excluded.rate, floor = excluded.floor, goal = excluded.goal, slope = excluded.slope, set_by = excluded.set_by,
    set_at = now(), revision = drain.revision + 1

-- name: lift
-- console, and who ends a replay; primary key of drain.
delete from drain where name = $1
