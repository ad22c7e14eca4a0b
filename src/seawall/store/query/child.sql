-- name: start
-- worker, when a workflow begins another run, and when it looks how that stands; primary key of event, thrice, unique (name, version),
-- run_event, run_done_event of the event's day, primary key of run_child. The event's id says which run of which is meant: there is
-- one of it, however often it is asked for. It goes so many turns ($14) behind its queue's clock ($15, $16: see queue_now): of a family that
-- is begun at one go each is one turn behind the other, so that it doesn't go before all that its neighbours have there. $8: the
-- run that begins it, when it is to be cancelled with that; said anew with each look, as somebody may have tried it again.
-- $9 to $11: the lease under which that one is in hand; primary key of shard_lease. Without it nothing is written: its number may be
-- another's by now, or nobody's, and what it began would be taken for an orphan. One row always. $12: the id, when that of $1 is of
-- one that another run of the same event began, whose headers don't begin with $13: a replay is to begin its own.
with ours as materialized (
  select 1 as held from shard_lease s
  where s.queue_id = $9 and s.shard = $10 and s.epoch = $11 and s.timeline = (select store_timeline())
  for key share of s
), meant as materialized (
  select case when (select true from event e where e.id = $12)
                   or (select substr(e.headers, 1, octet_length($13::bytea)) <> $13 from event e where e.id = $1)
              then $12::uuid else $1::uuid end as id
), takes as (
  select w.id, w.queue_id, q.shards from ours cross join workflow w join queue q on q.id = w.queue_id
  where w.name = $2 and w.active and not w.frozen
), event as (
  insert into event (id, source_id, source, tenant, type, status, received_at, headers, body, target, peer, key_id,
                     config_version, log_id, segment, "offset")
  select m.id, '00000000-0000-0000-0000-000000000000', ':run', $3, $4, 1, now(), $5, $6, '', '', 0, 0,
         '00000000-0000-0000-0000-000000000000', 0, 0
  from takes cross join meant m
  where (select e.id from event e where e.id = m.id) is null
  on conflict (id) do nothing
  returning id
), begun as (
  insert into run (id, event_id, workflow_id, tenant, queue_id, shard, vt)
  select n.id, e.id, t.id, $3, t.queue_id, n.id % t.shards, queue_now(t.queue_id, $15, $16) + $14::bigint * 1000
  from event e cross join takes t cross join lateral (select $7::bigint + (select run_number_base()) + nextval('run_number') as id) n
  returning id, queue_id, vt
), standing as materialized (
  select id, 0::smallint as status, null::smallint as cause, null::bytea as result, null::text as error, now() as created_at
  from begun
  union all
  select id, state, null, null, null, created_at from run where event_id = (select id from meant)
  union all
  select id, status, cause, result, error, created_at from run_done
  where event_id = (select id from meant) and id between $7 and $7 + (1::bigint << 44) - 1
  limit 1
), linked as (
  insert into run_child (parent_id, run_id)
  select $8::bigint, id from standing cross join ours where $8::bigint is not null and (status < 5 or status = 9)
  on conflict do nothing
)
select s.*, now() as now, exists (select 1 from ours) as held from (select 1) one left join standing s on true

-- name: standing
-- worker, when a run looks again at many that it waits for; primary keys of run_child and run. Those that haven't ended, by their events.
select r.event_id, r.id, r.state as status, r.created_at, now() as now
from (select run_id from run_child where parent_id = $1 order by run_id limit $2) c join run r on r.id = c.run_id

-- name: revive
-- worker, when a run that is there again looks at one that was cancelled with it; primary keys of run, run_done, run_until and
-- run_child, and queue_now. The same run goes on where it was, and its time begins anew; `waits` says that it has steps.
with parent as materialized (
  select id from run where id = $2 and state <> 9 for key share
), gone as (
  delete from run_done d where d.id = $1 and d.status = 7 and d.cause = 9 and exists (select 1 from parent)
  returning d.id, d.event_id, d.workflow_id, d.tenant, d.created_at, coalesce(d.began_at, d.started_at) as began_at
), anew as (
  delete from run_until u where u.run_id = $1 and exists (select 1 from gone)
), linked as (
  insert into run_child (parent_id, run_id) select $2, id from gone on conflict do nothing
)
insert into run (id, event_id, workflow_id, tenant, queue_id, shard, waits, vt, created_at, began_at)
select g.id, g.event_id, g.workflow_id, g.tenant, w.queue_id, g.id % q.shards, 1, queue_now(w.queue_id, $3, $4) + 1000,
       g.created_at, g.began_at
from gone g join workflow w on w.id = g.workflow_id join queue q on q.id = w.queue_id
on conflict do nothing

-- name: part
-- worker.ending, each second, the first part of orphans; primary key of run_child. A stretch of the table after the other, by one
-- worker at a time.
with turn as materialized (
  select pg_try_advisory_xact_lock(7203005) as ours
), part as materialized (
  select c.ctid as row, c.parent_id, c.run_id
  from turn cross join lateral (
    select ctid, parent_id, run_id from run_child
    where turn.ours and (parent_id, run_id) > ($1::bigint, $2::bigint) order by parent_id, run_id limit $3
  ) c
)

-- name: part_of
-- worker.ending, the same of runs that have just ended; primary key of run_child.
with turn as (
  select true as ours
), part as materialized (
  select ctid as row, parent_id, run_id from run_child where parent_id = any($1::bigint[]) order by parent_id, run_id limit $2
)

-- name: orphans
-- worker.ending, behind part or part_of, before cancel.mark in one transaction; primary key of run, twice for each row. Runs whose
-- parents aren't there any more. A run's row that somebody has locked isn't waited for, and comes again. Of runs that have ended
-- nothing needs to be known any more.
, seen as materialized (
  select p.row, p.parent_id, p.run_id,
         (select r.id from run r where r.id = p.parent_id) is null as orphan,
         (select r.id from run r where r.id = p.run_id) is null as over
  from part p
), found as materialized (
  select r.id from run r where r.id = any (array(select run_id from seen where orphan and not over))
  order by r.id for update skip locked
), forgotten as (
  delete from run_child where ctid = any (array(select row from seen where over or run_id in (select id from found)))
)
select coalesce(array_agg(s.run_id order by s.run_id) filter (where f.id is not null), '{}') as run_ids,
       coalesce(array_agg(s.parent_id order by s.run_id) filter (where f.id is not null), '{}') as parent_ids,
       count(*) as count, (select ours from turn) as turn, max(s.parent_id) as last_parent,
       (select p.run_id from part p order by p.parent_id desc, p.run_id desc limit 1) as last_run
from seen s left join found f on f.id = s.run_id and s.orphan

-- name: parents
-- store.cancel and worker.timer, behind ends that no flush brought about; primary key of event by day. Events by which runs began
-- that other runs may wait for. Only of those for which `kin` was said when they ended.
select source, headers from event
where id = any($1::uuid[]) and source_id = '00000000-0000-0000-0000-000000000000' and source = ':run'

-- name: ancestor
-- worker, only to say how deep runs are nested; primary keys of run, run_done, workflow and event.
select w.name, e.source, e.headers
from (
  select event_id, workflow_id from run where id = $1
  union all
  select event_id, workflow_id from run_done where id = $1
) u
join workflow w on w.id = u.workflow_id left join event e on e.id = u.event_id
