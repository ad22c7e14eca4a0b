-- name: run
-- console, GET /v1/runs/{id}/history; primary keys of run, run_done, event and step. `bytes`: of all that is kept.
select u.id, u.status, u.attempt, u.over, w.name as workflow, w.version, e.id as event_id, e.type, e.tenant, e.source,
       e.received_at, e.headers, e.body,
       (select coalesce(sum(octet_length(s.result)), 0) from step s where s.run_id = u.id) as bytes,
       (extract(epoch from now()) * 1000000)::bigint as now_us
from (
  select id, event_id, workflow_id, state as status, attempt, false as over from run where id = $1
  union all
  select id, event_id, workflow_id, status, attempt, true from run_done where id = $1
) u
left join workflow w on w.id = u.workflow_id
left join event e on e.id = u.event_id

-- name: kept
-- console, behind run; primary keys of step, wait and approval. Waits that ended are steps too; those that are open come without
-- a result.
select s.name, s.nth, s.result, s.failed, (extract(epoch from s.started_at) * 1000000)::bigint as started_us
from step s where s.run_id = $1
union all
select w.name, w.nth, null, false, 0
from wait w where w.run_id = $1 and not exists (
  select 1 from step s where s.run_id = w.run_id and s.name = w.name and s.nth = w.nth
)
union all
select a.name, a.nth, null, false, (extract(epoch from a.asked_at) * 1000000)::bigint
from approval a where a.run_id = $1 and not exists (
  select 1 from step s where s.run_id = a.run_id and s.name = a.name and s.nth = a.nth
)
order by started_us, name, nth
limit $2
