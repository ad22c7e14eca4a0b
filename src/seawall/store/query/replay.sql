-- name: open_count
-- console, before a replay is made; replay_open.
select count(*) from replay where ended_at is null

-- name: make
-- console; primary key of replay.
insert into replay (selection, sources, likes, tenants, states, causes, "first", "last", after, workflow, version, rate, ramp_s,
                    total, by, why)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16) returning id

-- name: lock
-- console, first of a change; primary key of replay.
select state, rate, ramp_s from replay where id = $1 for update

-- name: put
-- console, second of a change; primary key of replay.
update replay set state = $2, rate = $3, next_at = now(), ended_at = case when $2 = 'cancelled' then now() end where id = $1

-- name: page
-- console, GET /v1/replays; primary keys of replay and drain.
select r.*, d.rate as rate_now from replay r left join drain d on d.name = 'replay:' || r.id
where r.id < $1 order by r.id desc limit $2

-- name: one
-- console, GET /v1/replays/{id}; primary keys of replay and drain.
select r.*, d.rate as rate_now from replay r left join drain d on d.name = 'replay:' || r.id where r.id = $1

-- name: due
-- router.replay, some times a second; replay_open, primary key of drain. Those whose next events may begin, with their rates.
select r.id, d.rate from replay r join drain d on d.name = 'replay:' || r.id
where r.ended_at is null and r.state = 'running' and r.next_at <= now() order by r.next_at limit $1

-- name: take
-- router.replay, first of each batch; primary key of replay. One router at a time works on a replay: others pass over it.
select * from replay where id = $1 and state = 'running' and next_at <= now() for update skip locked

-- name: workflows
-- router.replay and console; the small tables workflow and queue. Those that a replay may begin, and the queues for that: a
-- queue that is beside another one has none beside itself.
select w.id, w.name, w.version, w.pattern, w.queue_id, q.name as queue, w.priority,
       coalesce(b.id, case when q.beside is not null then q.id end) as beside_id, coalesce(b.shards, q.shards) as shards,
       w.frozen
from workflow w join queue q on q.id = w.queue_id left join queue b on b.beside = w.queue_id
where ($1::text is null or w.name = $1) and (w.version = $2 or ($2::text is null and w.active))
order by w.id limit $3

-- name: queue_beside
-- router.replay, when a queue has none beside it; unique (name), unique (beside).
insert into queue (name, beside) select 'replay.' || name, id from queue where id = any ($1::smallint[]) and beside is null
on conflict (name) do update set beside = excluded.beside

-- name: full
-- router.replay, second of each batch; the small table queue, run_ready of those that are beside others. Which of them have $1 ready
-- runs.
select q.id from queue q
where q.beside is not null
  and (select count(*) from (select 1 from run r where r.queue_id = q.id and r.state = 0
                              order by r.shard, r.vt, r.id limit $1) one) >= $1

-- name: floor
-- router.replay, each batch; primary key of event. The id up to which a batch looks; none: to the end.
select id from event where id > $1 and id < $2 order by id offset $3 limit 1

-- name: events
-- router.replay, each batch; primary key of event, from $1 to $2. Without those that Seawall made itself, of schedules and for
-- runs of runs: each of them is meant for one workflow, and for one time.
select id, type, tenant from event
where id > $1 and id < $2 and ($3::text[] is null or source = any ($3)) and ($4::text[] is null or type like any ($4))
  and ($5::text[] is null or tenant = any ($5)) and ($6::smallint[] is null or status = any ($6))
  and ($7::smallint[] is null or cause = any ($7)) and source_id <> '00000000-0000-0000-0000-000000000000'
order by id limit $8

-- name: begin
-- router.replay, each batch; primary keys of replay_run and run. An event that began a workflow in this replay begins it in
-- no second batch, whatever became of the first. Runs of frozen workflows are held as those of new events are.
with made as (
  insert into replay_run (replay_id, event_id, workflow_id, run_id)
  select $1, u.event_id, u.workflow_id, u.day_base + (select run_number_base()) + nextval('run_number')
  from unnest($2::bigint[], $3::uuid[], $4::integer[]) as u (day_base, event_id, workflow_id)
  on conflict do nothing
  returning event_id, workflow_id, run_id
), begun as (
  insert into run (id, event_id, workflow_id, tenant, queue_id, shard, vt, state)
  select m.run_id, m.event_id, m.workflow_id, u.tenant, u.queue_id, u.shard, u.vt, case when u.frozen then 2 else 0 end
  from made m join unnest($3::uuid[], $4::integer[], $5::text[], $6::smallint[], $7::smallint[], $8::bigint[], $9::boolean[])
    as u (event_id, workflow_id, tenant, queue_id, shard, vt, frozen)
    on u.event_id = m.event_id and u.workflow_id = m.workflow_id
  returning id, workflow_id, state
), frozen as (
  insert into run_frozen (name, run_id)
  select w.name, b.id from begun b join workflow w on w.id = b.workflow_id where b.state = 2
)
select count(*) from begun

-- name: advance
-- router.replay, last of each batch; primary key of replay. A pause that was longer than a second isn't caught up.
update replay
set after = $2, seen = seen + $3, runs = runs + $4, state = case when $6 then 'done' else state end,
    ended_at = case when $6 then now() end,
    next_at = greatest(next_at, now() - interval '1 second') + $5 * interval '1 second'
where id = $1

-- name: prune
-- router.replay, each minute; primary keys of replay and replay_run.
delete from replay_run where ctid = any (array(
  select r.ctid from replay p join replay_run r on r.replay_id = p.id
  where p.ended_at < now() - $1 * interval '1 second' limit $2
))

-- name: forget
-- router.replay, each minute; the small table replay.
delete from replay p where p.ended_at < now() - $1 * interval '1 second'
  and not exists (select 1 from replay_run r where r.replay_id = p.id)
