-- name: index_plans
-- worker, before add_usage, in its transaction: it knows what it looks for by key, whatever the tables' statistics say.
set local enable_seqscan = off;
set local enable_hashjoin = off;
set local enable_mergejoin = off

-- name: add_usage
-- worker, every few seconds; primary keys of slot_use, run and run_done. What it counted since, and for the runs that it drew
-- how long they waited and took: their times come from here, so that no run brings them along for this. Cells come in one
-- order, so that two workers can't wait for each other in a circle.
with used as (
  insert into slot_use as s (minute, queue_id, workflow_id, tenant, slot_us, turns)
  select date_trunc('minute', now()), u.queue_id, u.workflow_id, u.tenant, u.slot_us, u.turns
  from unnest($2::smallint[], $3::integer[], $4::text[], $5::bigint[], $6::bigint[])
    u(queue_id, workflow_id, tenant, slot_us, turns)
  order by 2, 3, 4
  on conflict (minute, queue_id, workflow_id, tenant)
  do update set slot_us = s.slot_us + excluded.slot_us, turns = s.turns + excluded.turns
), drawn as (
  select b.queue_id, b.at_us / 1000 - (extract(epoch from coalesce(r.created_at, d.created_at)) * 1000)::bigint as start_ms,
         null::bigint as end_ms
  from unnest($7::smallint[], $8::bigint[], $9::bigint[]) b(queue_id, run_id, at_us)
  left join run r on r.id = b.run_id left join run_done d on d.id = b.run_id
  union all
  select e.queue_id, null, (extract(epoch from d.finished_at - d.created_at) * 1000)::bigint
  from unnest($10::smallint[], $11::bigint[]) e(queue_id, run_id) join run_done d on d.id = e.run_id
)
insert into queue_sample (queue_id, worker, starts_ms, ends_ms)
select queue_id, $1, coalesce(array_agg(greatest(0, start_ms)) filter (where start_ms is not null), '{}'),
       coalesce(array_agg(greatest(0, end_ms)) filter (where end_ms is not null), '{}')
from drawn where start_ms is not null or end_ms is not null
group by queue_id
on conflict do nothing

-- name: top
-- console, when asked; primary key of slot_use, three windows of it, and the small tables queue and workflow. $2: by queue,
-- workflow or tenant. Windows are whole minutes.
with windows as (
  select date_trunc('minute', now()) as this, $1 * interval '1 second' as long, interval '1 hour' as hour
)
select case $2 when 'queue' then q.name when 'workflow' then w.name else u.tenant end as name,
       sum(u.slot_us) filter (where u.minute > this - long) as slot_us,
       sum(u.turns) filter (where u.minute > this - long) as turns,
       sum(u.slot_us) filter (where u.minute > this - 2 * long and u.minute <= this - long) as before_us,
       sum(u.turns) filter (where u.minute > this - 2 * long and u.minute <= this - long) as before_turns,
       sum(u.slot_us) filter (where u.minute > this - long - hour and u.minute <= this - hour) as hour_us,
       sum(u.turns) filter (where u.minute > this - long - hour and u.minute <= this - hour) as hour_turns
from windows cross join slot_use u
left join queue q on q.id = u.queue_id left join workflow w on w.id = u.workflow_id
where u.minute > this - long - greatest(long, hour)
group by 1 order by 2 desc nulls last limit $3

-- name: prune_use
-- housekeeping; primary key of slot_use.
delete from slot_use where ctid = any (array(select ctid from slot_use where minute < $1 order by minute limit $2))

-- name: prune_samples
-- housekeeping; primary key of queue_sample.
delete from queue_sample where ctid = any (array(select ctid from queue_sample where at < $1 order by at limit $2))
