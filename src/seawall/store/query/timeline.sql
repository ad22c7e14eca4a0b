-- name: run
-- console, GET /v1/runs/{id}; primary keys of run, run_done and workflow; of one that is in hand, refill. `owner`: who has it now.
select u.*, w.queue_id as declared_id, q.shards
from (
  select r.id, r.event_id, r.tenant, r.workflow_id, r.queue_id, r.created_at, r.began_at, null::timestamptz as started_at,
         null::timestamptz as finished_at, r.state as status,
         (select l.owner from refill b join shard_lease l using (queue_id, shard, epoch)
          where b.queue_id = r.queue_id and b.shard = r.shard and r.id = any (b.run_ids) and l.expires_at > now() limit 1) as owner
  from run r where r.id = $1
  union all
  select d.id, d.event_id, d.tenant, d.workflow_id, null, d.created_at, d.began_at, d.started_at, d.finished_at, d.status, null
  from run_done d where d.id = $1
) u
left join workflow w on w.id = u.workflow_id
left join queue q on q.id = coalesce(u.queue_id, w.queue_id)

-- name: steps
-- console, behind run; primary keys of step and lease_taken. Who leased the run's shard ($3), or its queue's suspects, under the
-- step's epoch when it was kept. Of a sleep: until when.
select s.name, s.nth, s.attempt, s.failed, s.started_at, s.finished_at,
       case when octet_length(s.result) < 64 then s.result end as result,
       (select t.owner from lease_taken t
        where t.queue_id = $2 and t.shard in ($3, -1) and t.epoch = s.epoch and t.at <= s.finished_at
        order by t.at desc limit 1) as owner
from step s where s.run_id = $1
order by s.started_at, s.finished_at, s.name, s.nth
limit $4

-- name: waits
-- console, behind run; primary keys of wait, approval and step. Those that are open; requests to people until the run was told.
select w.name, w.nth, w.since_us, w.until_us from wait w where w.run_id = $1 and w.event_id is null and not w.over
union all
select a.name, a.nth, (extract(epoch from a.asked_at) * 1000000)::bigint, (extract(epoch from a.expires_at) * 1000000)::bigint
from approval a where a.run_id = $1 and not exists (
  select 1 from step s where s.run_id = a.run_id and s.name = a.name and s.nth = a.nth
) and exists (select 1 from run r where r.id = a.run_id)
order by since_us, name, nth limit $2

-- name: beats
-- console, behind run; primary keys of progress and step. Heartbeats of steps that haven't ended well.
select p.name, p.nth, p.at from progress p
where p.run_id = $1
  and not exists (select 1 from step s where s.run_id = p.run_id and s.name = p.name and s.nth = p.nth and not s.failed)
order by p.at, p.name, p.nth limit $2
