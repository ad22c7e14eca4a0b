-- name: meant
-- bulk, the first part of what follows; run and run_done of the days that are meant, event by primary key. Runs of a
-- selection, all of one snapshot. Null is anything, but states are always said. A ready run is running when its id is in the
-- refill row of a lease that lives. $12: unfinished ones are meant; $13: ended ones are.
with live as materialized (
  select unnest(b.run_ids) as id
  from refill b join shard_lease l using (queue_id, shard, epoch) where l.expires_at > now()
), meant as (
  select r.id, r.workflow_id, r.queue_id, s.status, null::smallint as cause
  from run r
  cross join lateral (
    select case when r.state = 0 and r.id in (select id from live) then 4::smallint else r.state end as status
  ) s
  where $12::boolean and s.status = any ($1::smallint[])
    and ($2::integer[] is null or r.workflow_id = any ($2))
    and ($3::smallint[] is null or r.queue_id = any ($3))
    and ($4::text[] is null or r.tenant = any ($4))
    and (($5::text[] is null and $6::text[] is null) or exists (
      select 1 from event e where e.id = r.event_id
        and ($5::text[] is null or e.source = any ($5)) and ($6::text[] is null or e.type like any ($6))))
    and $7::smallint[] is null
    and r.event_id >= $8::uuid and r.event_id < $9::uuid and r.id >= $10::bigint and r.id < $11::bigint
  union all
  select d.id, d.workflow_id, w.queue_id, d.status, d.cause
  from run_done d join workflow w on w.id = d.workflow_id
  where $13::boolean and d.status = any ($1::smallint[])
    and ($2::integer[] is null or d.workflow_id = any ($2))
    and ($3::smallint[] is null or w.queue_id = any ($3))
    and ($4::text[] is null or d.tenant = any ($4))
    and (($5::text[] is null and $6::text[] is null) or exists (
      select 1 from event e where e.id = d.event_id
        and ($5::text[] is null or e.source = any ($5)) and ($6::text[] is null or e.type like any ($6))))
    and ($7::smallint[] is null or d.cause = any ($7))
    and d.event_id >= $8::uuid and d.event_id < $9::uuid and d.id >= $10::bigint and d.id < $11::bigint
)

-- name: counts
-- console, GET /v1/runs/count, behind meant; the small tables workflow and queue. At most $14 rows, the largest; each has how
-- many there are of all.
select w.name as workflow, w.version, q.name as queue, m.status, m.cause, m.count, sum(m.count) over ()::bigint as total
from (select workflow_id, queue_id, status, cause, count(*) from meant group by 1, 2, 3, 4) m
left join workflow w on w.id = m.workflow_id left join queue q on q.id = m.queue_id
order by m.count desc, 1, 2, 3, 4, 5 limit $14

-- name: event_counts
-- console, GET /v1/events/count and a replay that is only tried; event, the days that are meant. At most $8 rows, the largest;
-- each has how many there are of all. $9: without those that Seawall made itself, of schedules and for runs of runs.
select source, type, day, status, cause, count, sum(count) over ()::bigint as total
from (
  select e.source, e.type, e.status, e.cause, count(*),
         to_char(to_timestamp(('x' || left(replace(e.id::text, '-', ''), 12))::bit(48)::bigint / 1000) at time zone 'UTC',
                 'YYYY-MM-DD') as day
  from event e
  where ($1::text[] is null or e.source = any ($1)) and ($2::text[] is null or e.type like any ($2))
    and ($3::text[] is null or e.tenant = any ($3)) and ($4::smallint[] is null or e.status = any ($4))
    and ($5::smallint[] is null or e.cause = any ($5)) and e.id >= $6::uuid and e.id < $7::uuid
    and (not $9::boolean or e.source_id <> '00000000-0000-0000-0000-000000000000')
  group by 1, 2, 3, 4, 6
) c
order by count desc, 1, 2, 3, 4, 5 limit $8

-- name: open_count
-- console, before a bulk is made; bulk_open.
select count(*) from bulk where ended_at is null

-- name: make
-- console, first of the transaction that chooses; primary key of bulk.
insert into bulk (act, selection, by, why, chosen) values ($1, $2, $3, $4, 0) returning id

-- name: choose
-- console, behind meant, in the transaction of make: from its commit on, which runs are meant is fixed. At most $15.
, kept as (
  insert into bulk_run (bulk_id, run_id, was) select $14, id, status from meant limit $15 returning 1
)
select count(*) from kept

-- name: chosen
-- console, last of that transaction; primary key of bulk.
update bulk set chosen = $2 where id = $1

-- name: undo
-- console; primary keys of bulk and bulk_run, unique (undoes). What a bulk has done, as a bulk of its own; runs that it missed
-- aren't among them. No row: there is none, it isn't over, it was undone already, or its time is over.
with undone as (
  select b.* from bulk b
  where b.id = $1 and b.ended_at > now() - $5 * interval '1 second'
    and not exists (select 1 from bulk u where u.undoes = b.id)
), made as (
  insert into bulk (act, selection, by, why, undoes, chosen)
  select $2, 'undoes ' || u.id, $3, $4, u.id, u.done from undone u
  on conflict (undoes) do nothing
  returning id, undoes
), kept as (
  insert into bulk_run (bulk_id, run_id, was)
  select m.id, r.run_id, r.was from made m join bulk_run r on r.bulk_id = m.undoes where r.fate is null
  returning 1
)
select m.id, (select count(*) from kept) as count from made m

-- name: page
-- console, GET /v1/bulk; primary key of bulk, unique (undoes).
select b.*, u.id as undone_by from bulk b left join bulk u on u.undoes = b.id
where b.id < $1 order by b.id desc limit $2

-- name: one
-- console, GET /v1/bulk/{id}; primary key of bulk, unique (undoes).
select b.*, u.id as undone_by from bulk b left join bulk u on u.undoes = b.id where b.id = $1

-- name: take
-- router.bulk, first of each piece; bulk_open. One router at a time works on a bulk: others pass over it.
select id, act, after, rounds, why, by from bulk where ended_at is null order by id limit 1 for update skip locked

-- name: steady
-- router.bulk, second of each piece. From the rows that we name, by their indexes, whatever the statistics say of tables that
-- grew or shrank by a million rows a moment ago.
select set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true),
       set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true)

-- name: next
-- router.bulk; primary key of bulk_run.
select run_id from bulk_run where bulk_id = $1 and run_id > $2 order by run_id limit $3

-- name: next_down
-- router.bulk, in place of next for a retry; primary key of bulk_run. The last first: a run has a smaller number than those that it
-- began, and would fail again if it came back before them.
select run_id from bulk_run where bulk_id = $1 and run_id < case when $2::bigint < 0 then 9223372036854775807 else $2 end
order by run_id desc limit $3

-- name: next_off
-- router.bulk, behind the last of next; bulk_run_off.
select run_id from bulk_run where bulk_id = $1 and fate = 1 and run_id > $2 order by run_id limit $3

-- name: hold
-- router.bulk; primary key of run. A run in hand goes on until it ends, fails or waits, and is held then: the flush that puts it
-- away leaves the state. One that stood in a line is in nobody's hands, and gets a moment that says so. A row that somebody has
-- locked is being flushed or woken: never waited for, so that no two can wait in a circle; it comes again.
with found as materialized (
  select id, state from run where id = any ($1::bigint[]) order by id for update skip locked
), held as (
  update run r set state = 2, run_after = case when f.state = 3 then now() else r.run_after end
  from found f where r.id = f.id and f.state in (0, 1, 3) returning r.id
)
select coalesce((select array_agg(id) from held), '{}') as done, coalesce((select array_agg(id) from found), '{}') as seen,
       coalesce((select array_agg(id) from run where id = any ($1)), '{}') as there

-- name: free
-- router.bulk, first of a cancellation, before cancel.mark, which would wait for rows that are being flushed; primary key of run.
with found as materialized (select id from run where id = any ($1::bigint[]) order by id for update skip locked)
select coalesce((select array_agg(id) from found), '{}') as free, coalesce((select array_agg(id) from run where id = any ($1)), '{}')
       as there

-- name: orphaned
-- router.bulk, in a cancellation, when some of a piece had ended; primary keys of run_done, by day. Those that ended with the run
-- that began them.
select coalesce(array_agg(id), '{}') from run_done where id = any ($1::bigint[]) and status = 7 and cause = 9

-- name: held
-- router.bulk, first of a release; primary keys of run and workflow.
select r.id, r.queue_id, r.tenant, w.priority from run r join workflow w on w.id = r.workflow_id
where r.id = any ($1::bigint[]) and r.state = 2 order by r.id for update of r skip locked

-- name: release
-- router.bulk, behind held; primary keys of run, approval and run_frozen. Who waited for its time goes on waiting; who waited for an
-- event looks again, since it may have come meanwhile, and so does whom people have answered; who stood in a line stands in it again. One without a moment was let in, may be in
-- hand, and has counted all the time: it isn't let in twice. Nobody thaws it any more.
with released as (
  update run r
  set state = case when r.run_after > now() and not u.looks then 1
                   when r.line is null or r.run_after is null then 0 else 3 end,
      run_after = case when r.run_after > now() and not u.looks then r.run_after end, vt = greatest(r.vt, u.vt)
  from (
    select v.id, v.vt, not o.retrying and (
      o.listens or exists (select 1 from approval a where a.run_id = o.id and a.decided_at is not null)
    ) as looks
    from unnest($2::bigint[], $3::bigint[]) as v (id, vt) join run o on o.id = v.id
  ) u
  where r.id = u.id and r.state = 2
  returning r.id, r.workflow_id
), thawed as (
  delete from run_frozen f using released l join workflow w on w.id = l.workflow_id where f.name = w.name and f.run_id = l.id
)
select coalesce((select array_agg(id) from released), '{}') as done, '{}'::bigint[] as seen,
       coalesce((select array_agg(id) from run where id = any ($1::bigint[]) and state = 2 and id <> all ($2)), '{}') as there

-- name: ended
-- router.bulk, first of a retry; primary keys of run_done, by day, of bulk_run, workflow and queue.
select d.id, d.event_id, d.tenant, w.queue_id, w.priority, q.shards, b.was
from run_done d join bulk_run b on b.bulk_id = $2 and b.run_id = d.id
join workflow w on w.id = d.workflow_id join queue q on q.id = w.queue_id
where d.id = any ($1::bigint[]) and d.status in (6, 7, 8)
order by d.id for update of d skip locked

-- name: retry
-- router.bulk, behind ended; primary keys of run_done, step, approval, run_until, ticket and run. The same run again: what it has
-- done is kept, and what it remembers of failed steps and of requests that expired is forgotten; its time begins anew. Above 0,
-- `waits` says that it has steps of before.
with gone as (
  delete from run_done d using unnest($2::bigint[]) as u (id) where d.id = u.id and d.status in (6, 7, 8)
  returning d.id, d.event_id, d.workflow_id, d.tenant, d.created_at, coalesce(d.began_at, d.started_at) as began_at
), forgotten as (
  delete from step s where s.run_id = any ($2) and (s.failed or (s.name, s.nth) in (
    select a.name, a.nth from approval a where a.run_id = s.run_id and a.over
  ))
), unasked as (
  delete from approval a where a.run_id = any ($2) and a.decided_at is null and (a.over or a.expires_at <= now())
), anew as (
  delete from run_until u where u.run_id = any ($2)
), again as (
  insert into run (id, event_id, workflow_id, tenant, queue_id, shard, state, waits, ticket, vt, created_at, began_at)
  select g.id, g.event_id, g.workflow_id, g.tenant, u.queue_id, u.shard, u.state, 1,
         (select t.id from ticket t where t.id = g.event_id) is not null, u.vt, g.created_at, g.began_at
  from gone g join unnest($2, $3::smallint[], $4::smallint[], $5::smallint[], $6::bigint[])
    as u (id, queue_id, shard, state, vt) on u.id = g.id
  on conflict do nothing
  returning id
)
select coalesce((select array_agg(id) from again), '{}') as done, '{}'::bigint[] as seen,
       coalesce((select array_agg(id) from (
         select id from run_done where id = any ($1::bigint[]) and status in (6, 7, 8) and id <> all ($2)
         union all select id from run where id = any ($1) and state = 9
       ) t), '{}') as there

-- name: unsettled
-- router.bulk, in each round of a cancellation; run_cancelling, which is empty mostly, primary key of bulk_run. Marked by it, and
-- not ended yet.
select coalesce(array_agg(id), '{}') from (
  select r.id from run r where r.state = 9 and exists (select 1 from bulk_run b where b.bulk_id = $1 and b.run_id = r.id)
  limit $2
) u

-- name: mark
-- router.bulk, when some of a piece weren't done; primary key of bulk_run.
update bulk_run set fate = $3 where bulk_id = $1 and run_id = any ($2::bigint[])

-- name: advance
-- router.bulk, last of each piece; primary key of bulk.
update bulk set after = $2, done = done + $3, missed = missed + $4, rounds = $5,
                ended_at = case when $6 then now() end
where id = $1

-- name: prune
-- router.bulk, each minute; primary keys of bulk and bulk_run. Which runs they were is forgotten when nothing can be undone.
delete from bulk_run where ctid = any (array(
  select r.ctid from bulk b join bulk_run r on r.bulk_id = b.id
  where b.ended_at < now() - $1 * interval '1 second' limit $2
))

-- name: forget
-- router.bulk, each minute; the small table bulk.
delete from bulk b where b.ended_at < now() - $1 * interval '1 second'
  and not exists (select 1 from bulk_run r where r.bulk_id = b.id) and not exists (select 1 from bulk u where u.undoes = b.id)
