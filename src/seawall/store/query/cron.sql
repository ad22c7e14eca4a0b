-- name: declare
-- worker, at start; primary key of cron. What is paused stays so.
insert into cron (name, expression, zone, overlap, catch_up, tenant)
select * from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[])
on conflict (name) do update
set expression = excluded.expression, zone = excluded.zone, overlap = excluded.overlap, catch_up = excluded.catch_up,
    tenant = excluded.tenant
where (cron.expression, cron.zone, cron.overlap, cron.catch_up, cron.tenant)
   is distinct from (excluded.expression, excluded.zone, excluded.overlap, excluded.catch_up, excluded.tenant)
returning name

-- name: forget
-- worker, at start; the small tables cron and workflow. Those whose workflow no worker has any more. What somebody
-- has paused stays: the worker that brings it back, after an app without it was rolled back, must not begin what was stopped by hand.
delete from cron c where not c.paused and not exists (select 1 from workflow w where w.name = c.name and w.active)

-- name: lines
-- worker, at start and each half minute; the small tables cron and source, primary key of cron_line. Which lines there are to be,
-- of those in $1: `moment_us` is null of one that isn't there yet.
select c.name, t.tenant, c.expression, c.zone, c.tenant is null as spread,
       (extract(epoch from l.moment) * 1000000)::bigint as moment_us,
       (extract(epoch from now()) * 1000000)::bigint as now_us
from cron c
cross join lateral (
  select c.tenant as tenant where c.tenant is not null
  union
  select s.tenant from source s where c.tenant is null and s.removed_at is null
) t
left join cron_line l on l.name = c.name and l.tenant = t.tenant
where c.name = any($1::text[])

-- name: make_lines
-- worker, behind lines, or for those whose schedule was changed; primary key of cron_line.
insert into cron_line (name, tenant, moment, due_at)
select name, tenant, to_timestamp(moment_us / 1e6::float8), to_timestamp(due_us / 1e6::float8)
from unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[]) as u (name, tenant, moment_us, due_us)
on conflict (name, tenant) do update set moment = excluded.moment, due_at = excluded.due_at, blocked = false

-- name: drop_lines
-- worker, each half minute; the small tables cron and source. Lines of tenants that have no source any more, or aren't
-- meant any more.
delete from cron_line l using cron c
where c.name = l.name and c.name = any($1::text[])
  and case when c.tenant is null
           then not exists (select 1 from source s where s.tenant = l.tenant and s.removed_at is null)
           else l.tenant <> c.tenant end

-- name: due
-- worker, each second, first of a transaction; cron_due. Lines whose moment has come, locked: nobody else begins their runs
-- meanwhile. Those of a workflow that no worker has, or that is frozen, wait; it can't be frozen before what is begun here is
-- committed, or a moment would pass without a run.
select l.name, l.tenant, (extract(epoch from l.moment) * 1000000)::bigint as moment_us, l.blocked, l.run_id,
       (extract(epoch from l.last) * 1000000)::bigint as last_us,
       c.expression, c.zone, c.overlap, c.catch_up, c.paused, c.tenant is null as spread,
       (extract(epoch from now()) * 1000000)::bigint as now_us
from cron_line l join cron c on c.name = l.name join workflow w on w.name = c.name and w.active and not w.frozen
where l.due_at <= now() and c.name = any($1::text[])
order by l.due_at limit $2
for update of l skip locked for share of w skip locked

-- name: running
-- worker, behind due, in a statement of its own: while that was under way somebody else may have begun a run of a line that is due
-- still, and committed; it has that line as it is now, and rows of `run` as they were. Primary key of run.
select id from run where id = any($1::bigint[])

-- name: one
-- console, first of a run that is begun by hand; primary keys of cron and cron_line.
select c.name, l.tenant, c.expression, c.zone, (extract(epoch from l.last) * 1000000)::bigint as last_us,
       (extract(epoch from now()) * 1000000)::bigint as now_us
from cron c join cron_line l on l.name = c.name
where c.name = $1 and ($2::text is null or l.tenant = $2)
order by l.tenant limit 2
for update of l

-- name: begin
-- worker and console, behind due or one; primary keys of cron_moment, event, workflow and queue, and queue_now ($8, $9) once for
-- each queue. A run for each moment that has none, with an event of its own, and the line goes on. A run goes behind its queue's
-- clock, and one turn behind another of its tenant: before a tenant's own backlog, and not before everybody.
with asked as (
  select u.*, u.day_base + (select run_number_base()) + nextval('run_number') as run_id
  from unnest($1::text[], $2::text[], $3::bigint[], $4::uuid[], $5::bigint[], $6::bytea[], $7::text[])
    as u (name, tenant, moment_us, event_id, day_base, body, type)
), fresh as (
  insert into cron_moment (name, tenant, moment, run_id)
  select a.name, a.tenant, to_timestamp(a.moment_us / 1e6::float8), a.run_id
  from asked a join workflow w on w.name = a.name and w.active and not w.frozen
  on conflict do nothing
  returning name, tenant, run_id
), event as (
  insert into event (id, source_id, source, tenant, type, status, received_at, headers, body, target, peer, key_id,
                     config_version, log_id, segment, "offset")
  select a.event_id, '00000000-0000-0000-0000-000000000000', ':cron', a.tenant, a.type, 1, now(), '', a.body, '', '', 0, 0,
         '00000000-0000-0000-0000-000000000000', 0, 0
  from fresh f join asked a on a.run_id = f.run_id
), meant as materialized (
  select a.run_id, a.event_id, w.id as workflow_id, a.tenant, w.queue_id, a.run_id % q.shards as shard,
         row_number() over (partition by w.queue_id, a.tenant order by a.moment_us, a.run_id) as turn
  from fresh f join asked a on a.run_id = f.run_id join workflow w on w.name = a.name and w.active and not w.frozen
  join queue q on q.id = w.queue_id
), clock as materialized (
  select queue_id, queue_now(queue_id, $8, $9) as vt from (select distinct queue_id from meant) q
), begun as (
  insert into run (id, event_id, workflow_id, tenant, queue_id, shard, vt)
  select m.run_id, m.event_id, m.workflow_id, m.tenant, m.queue_id, m.shard, c.vt + 1000 * m.turn
  from meant m join clock c using (queue_id)
  returning id, queue_id, vt
)
update cron_line l set run_id = f.run_id, last = to_timestamp(a.moment_us / 1e6::float8), begun = l.begun + 1
from fresh f join asked a on a.run_id = f.run_id join begun b on b.id = f.run_id
where l.name = f.name and l.tenant = f.tenant
returning l.name, l.tenant, l.run_id, b.queue_id, b.vt

-- name: go_on
-- worker, behind begin; primary key of cron_line.
update cron_line l
set moment = to_timestamp(u.moment_us / 1e6::float8), due_at = to_timestamp(u.due_us / 1e6::float8), blocked = u.blocked,
    skipped = l.skipped + u.skipped, missed = l.missed + u.missed
from unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::boolean[], $6::bigint[], $7::bigint[])
  as u (name, tenant, moment_us, due_us, blocked, skipped, missed)
where l.name = u.name and l.tenant = u.tenant

-- name: prune
-- worker, each half minute; primary key of cron_moment, of the lines of $1.
delete from cron_moment where name = any($1::text[]) and moment < now() - interval '7 days'

-- name: page
-- console, when asked; the small tables cron and cron_line: of those for every tenant the sums, and the next moment.
select c.name, c.expression, c.zone, c.overlap, c.catch_up, c.tenant, c.paused, l.lines, l.next_at, l.last_at, l.begun,
       l.skipped, l.missed
from cron c
left join lateral (
  select count(*) as lines, min(due_at) as next_at, max(last) as last_at, coalesce(sum(begun), 0)::bigint as begun,
         coalesce(sum(skipped), 0)::bigint as skipped, coalesce(sum(missed), 0)::bigint as missed
  from cron_line l where l.name = c.name
) l on true
order by c.name limit $1

-- name: lock
-- console, first of a change; primary key of cron.
select paused from cron where name = $1 for update

-- name: pause
-- console, second of a change; primary key of cron.
update cron set paused = $2 where name = $1
