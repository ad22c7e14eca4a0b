-- name: look_here
-- testing, once for each database that is made; no table. Whatever is called without a schema is ours before it is PostgreSQL's,
-- so our statements, which all say now(), follow a clock of the test's without being changed.
alter database {name} set search_path = public, pg_catalog

-- name: make_database
-- testing, before each rehearsal; no table.
create database {name} template {template}

-- name: make_first_database
-- testing, once for each server; no table.
create database {name}

-- name: drop_database
-- testing, after each rehearsal; no table. Whatever still has a connection loses it.
drop database if exists {name} with (force)

-- name: lay_clock
-- testing, before the schema is applied, so that its defaults follow the clock too; one row. The functions read as their
-- owner: a worker's role knows of no clock.
create table public.rehearsal_clock (at timestamptz not null);
insert into public.rehearsal_clock values (pg_catalog.now());
create function public.now() returns timestamptz language sql stable security definer
  set search_path = pg_catalog as 'select at from public.rehearsal_clock';
create function public.clock_timestamp() returns timestamptz language sql stable security definer
  set search_path = pg_catalog as 'select at from public.rehearsal_clock'

-- name: move_clock
-- testing, each time that time passes; one row.
update public.rehearsal_clock set at = to_timestamp($1::bigint / 1000000) + ($1::bigint % 1000000) * interval '1 microsecond'

-- name: standing
-- testing, again and again until nothing is to be done; the small tables run, run_until, queue and cron_line. Runs that may begin or
-- are in hand, how many wait for what has come already (schedules, and events that very many wait for, among them) or are to end, and
-- the next moment that anything waits for. Where none of its key is in hand, a limited run is let in now, or when its rate says so.
with schedule as (
  select l.due_at from cron_line l join cron c on c.name = l.name
  where not c.paused and exists (select 1 from workflow w where w.name = c.name and w.active and not w.frozen)
)
select (select coalesce(array_agg(r.id), '{}')
        from run r join queue q on q.id = r.queue_id where r.state = 0 and not q.paused) as ready,
       (select count(*) from run where state = 1 and run_after <= now())
       + (select count(*) from correlation where asked is not null)
       + (select count(*) from run where state = 9)
       + (select count(*) from run_child c join run r on r.id = c.run_id
          where not exists (select 1 from run p where p.id = c.parent_id))
       + (select count(*) from run_until u join run r on r.id = u.run_id where u.until <= now())
       + (select count(*) from schedule where due_at <= now())
       + (select count(*) from run r join queue q on q.id = r.queue_id left join rate t on t.key = r.line
          where r.state = 3 and not q.paused and coalesce(t.next_us, 0) <= extract(epoch from clock_timestamp()) * 1000000
            and not exists (select 1 from run h where h.state = 0 and r.line = any (h.keys))) as due,
       least((select (extract(epoch from min(run_after)) * 1000000)::bigint from run where state = 1),
             (select (extract(epoch from min(u.until)) * 1000000)::bigint from run_until u join run r on r.id = u.run_id),
             (select (extract(epoch from min(due_at)) * 1000000)::bigint from schedule),
             (select min(t.next_us) from run r join rate t on t.key = r.line where r.state = 3)) as next_us

-- name: schedules
-- testing, when a worker has begun; the small tables cron and cron_line. How many are known, with their line where they have one
-- of their own.
select count(*) from cron c where c.tenant is null or exists (select 1 from cron_line l where l.name = c.name)

-- name: arrived
-- testing, after an event was sent; primary keys of event and duplicate.
select exists (select 1 from event where id = $1) or exists (select 1 from duplicate where id = $1)

-- name: reply
-- testing, when asked; primary keys of duplicate and reply.
select p.status, p.content_type, p.body
from (values ($1::uuid)) as w (id) left join duplicate d on d.id = w.id
join reply p on p.event_id = coalesce(d.first_id, w.id)
