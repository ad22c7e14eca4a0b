-- name: lines
-- console, GET /v1/workflows; the small tables workflow, queue, worker and workflow_hand; run_frozen by name. `live`: a worker
-- has it that was seen in the last $2 seconds. `held`: runs that wait for the workflow to thaw, counted up to $3.
select w.name, w.version, w.pattern, q.name as queue, w.active, w.registered_at,
       coalesce(h.frozen, false) as frozen, h.workflow_id is not distinct from w.id as by_hand,
       exists (select 1 from worker k where w.id = any(k.workflow_ids) and k.seen_at > now() - $2 * interval '1 second') as live,
       case when w.active then (select count(*) from (select 1 from run_frozen f where f.name = w.name limit $3) n) else 0 end
       as held
from workflow w join queue q on q.id = w.queue_id left join workflow_hand h on h.name = w.name
order by w.name, w.registered_at desc, w.id desc
limit $1

-- name: versions
-- console, first of a change of a workflow, behind lock_registration; the small tables workflow, worker and workflow_hand.
select w.id, w.version, w.active, coalesce(h.frozen, false) as frozen, h.workflow_id is not distinct from w.id as by_hand,
       exists (select 1 from worker k where w.id = any(k.workflow_ids) and k.seen_at > now() - $2 * interval '1 second') as live
from workflow w left join workflow_hand h on h.name = w.name
where w.name = $1
order by w.registered_at desc, w.id desc

-- name: put_hand
-- console, second of a change; primary key of workflow_hand.
insert into workflow_hand (name, workflow_id, frozen) values ($1, $2, $3)
on conflict (name) do update set workflow_id = excluded.workflow_id, frozen = excluded.frozen

-- name: put_frozen
-- console, third of a freeze or thaw; unique (name, version). Part of the catalogue: a router's next batch knows it. Who freezes what
-- has lapsed knows of it.
update workflow set frozen = $2, lapsed_at = case when $2 then null else lapsed_at end
where name = $1 and (frozen <> $2 or $2 and lapsed_at is not null)

-- name: freeze_new
-- router.commit, in a batch that began runs of frozen workflows, behind keep; run_event. Nobody sees them ready. Without keys:
-- they are in no line, and count under no limit.
with held as (
  update run r set state = 2, keys = null, gates = null, line = null from unnest($1::uuid[], $2::integer[]) as u (event_id, workflow_id)
  where r.event_id = u.event_id and r.workflow_id = u.workflow_id and r.state <> 2
  returning r.id, r.workflow_id
)
insert into run_frozen (name, run_id) select w.name, h.id from held h join workflow w on w.id = h.workflow_id
on conflict do nothing

-- name: thawed
-- router.housekeeping, each second; primary key of run_frozen, which is empty mostly, primary keys of run and queue. Runs of
-- workflows that aren't frozen any more, in the order in which they came; one that has ended, or that somebody has let go or
-- moved on by hand, has no queue.
select f.name, f.run_id, case when r.state = 2 then r.queue_id end as queue_id, r.tenant
from (
  select n.name, o.run_id from (select distinct name from workflow) n cross join lateral (
    select run_id from run_frozen o where o.name = n.name order by o.run_id limit $1
  ) o
  where not exists (select 1 from workflow_hand h where h.name = n.name and h.frozen)
  order by n.name, o.run_id limit $1
) first
join run_frozen f on f.name = first.name and f.run_id = first.run_id left join run r on r.id = f.run_id
order by f.name, f.run_id
for update of f skip locked

-- name: thaw
-- router.housekeeping, behind thawed; primary keys of run_frozen and run.
with gone as (
  delete from run_frozen f using unnest($1::text[], $2::bigint[]) as u (name, run_id)
  where f.name = u.name and f.run_id = u.run_id
)
update run r set state = 0, vt = greatest(r.vt, u.vt), run_after = null, keys = null, gates = null, line = null
from unnest($3::bigint[], $4::bigint[]) as u (id, vt) where r.id = u.id and r.state = 2

-- name: set_aside
-- console, first of a move; primary keys of run and workflow, unique (name, version). One that waits is in nobody's hands, and is
-- moved at once. Ready ones leave the index by which workers find them: no refill that begins from now on takes one; one that
-- stood in a line gets a moment that says so. Runs are locked in the order of their ids, as everywhere. `waits` says that steps may be kept of before,
-- whoever leases the shard that it comes to; without keys, a run is given those of its version's limits, if it has any.
with found as materialized (
  select id, state, workflow_id from run where id = any($1::bigint[]) order by id for update
), meant as materialized (
  select f.id, f.state, f.workflow_id, w.name, w.version, t.id as to_id, t.queue_id, q.shards
  from found f join workflow w on w.id = f.workflow_id
  left join workflow t on t.name = w.name and t.version = $2 left join queue q on q.id = t.queue_id
), moved as (
  update run r set workflow_id = m.to_id, queue_id = m.queue_id, waits = r.waits + 1,
    shard = case when r.shard < 0 then r.shard else r.id % m.shards end, keys = null, gates = null, line = null
  from meant m where r.id = m.id and m.state = 1 and m.to_id <> m.workflow_id
), aside as (
  update run r set state = 2, run_after = case when m.state = 3 then now() else r.run_after end
  from meant m where r.id = m.id and m.state in (0, 3) and m.to_id <> m.workflow_id
)
select id, state, name, version, to_id, to_id = workflow_id as there from meant

-- name: move
-- console, behind the commit of set_aside, when the refills of then have ended; primary keys of run, and all of refill. Moves
-- what was set aside or held, and gives back what somebody has in hand, be it held: one that was put away since, or stood in a line, has
-- a moment, and is in nobody's. $3: be sure of none without. $4: they were held, and stay so.
with found as materialized (
  select id, run_after is null and ($3 or id in (select unnest(run_ids) from refill)) as inhand
  from run where id = any($1::bigint[]) and state = 2 order by id for update
), moved as (
  update run r set state = case when u.held then 2 when s.sleeps then 1 else 0 end,
    run_after = case when u.held or s.sleeps then r.run_after end, workflow_id = t.id, queue_id = t.queue_id, waits = r.waits + 1,
    shard = case when r.shard < 0 then r.shard else r.id % q.shards end, keys = null, gates = null, line = null
  from found f join run o on o.id = f.id join workflow w on w.id = o.workflow_id
  join workflow t on t.name = w.name and t.version = $2 join queue q on q.id = t.queue_id
  join unnest($1::bigint[], $4::boolean[]) as u (id, held) on u.id = f.id
  cross join lateral (select coalesce(o.run_after > now(), false) and (o.retrying or not o.listens) as sleeps) s
  where r.id = f.id and not f.inhand
  returning r.id
), back as (
  update run r set state = 0 from found f join unnest($1::bigint[], $4::boolean[]) as u (id, held) on u.id = f.id
  where r.id = f.id and f.inhand and not u.held
)
select coalesce((select array_agg(id) from moved), '{}')
