-- name: outcomes
-- responder, each reconciling read (at most 500 ids); primary keys, run_event, run_done_event of the event's own day.
-- A body larger than $2 bytes is left out here and read alone, so that one answer is bounded whatever the batch holds.
with wanted as materialized (
  select w.id,
         coalesce(t.event_id, d.first_id, w.id) as event_id
  from unnest($1::uuid[]) as w(id)
  left join ticket t on t.id = w.id
  left join duplicate d on d.id = w.id
), placed as materialized (
  select w.*, (('x' || left(replace(w.event_id::text, '-', ''), 12))::bit(48)::bigint / 86400000) << 44 as first_run
  from wanted w
)
select p.id, p.event_id, e.status, e.reason,
       r.run_id as reply_run, r.status as reply_status, r.content_type, octet_length(r.body) as reply_bytes,
       case when octet_length(r.body) <= $2 then r.body end as reply_body,
       o.open_runs, f.ids, f.statuses, f.result_bytes, f.results,
       r.run_id is null and o.open_runs = 0 and coalesce(f.ended_at < now() - interval '1 day', false) as forgotten
from placed p
cross join lateral (select count(*) as open_runs from run where run.event_id = p.event_id) o
left join event e on e.id = p.event_id
left join reply r on r.event_id = p.event_id
left join lateral (
  select array_agg(x.id order by x.id) as ids,
         array_agg(x.status order by x.id) as statuses,
         array_agg(x.result_bytes order by x.id) as result_bytes,
         array_agg(x.result order by x.id) as results,
         max(x.finished_at) as ended_at
  from (
    select d.id, d.status, d.finished_at, coalesce(octet_length(d.result), 0) as result_bytes,
           case when octet_length(d.result) <= $2 then d.result end as result
    from run_done d
    where d.event_id = p.event_id and d.id between p.first_run and p.first_run | ((1::bigint << 44) - 1)
    order by d.id
    limit 100
  ) x
) f on true

-- name: reply_body
-- responder, for a reply that is too large for a batch; primary key.
select body from reply where event_id = $1

-- name: run_result
-- responder, for a result that is too large for a batch; primary key.
select result from run_done where id = $1

-- name: event_status
-- responder, GET /in/events/{id}; primary keys, run_event, run_done_event of the event's own day. A row for each run, one
-- without a run when there is none.
with found as materialized (
  select e.id, e.status,
         (('x' || left(replace(e.id::text, '-', ''), 12))::bit(48)::bigint / 86400000) << 44 as first_run
  from (values ($1::uuid)) as w(id)
  left join duplicate d on d.id = w.id
  join event e on e.id = coalesce(d.first_id, w.id)
)
select f.id, f.status, r.id as run_id, w.name as workflow, r.status as run_status
from found f
left join lateral (
  select o.id, o.workflow_id,
         case when o.state = 0 and exists (
           select 1 from refill b join shard_lease l using (queue_id, shard, epoch)
           where b.queue_id = o.queue_id and b.shard = o.shard and o.id = any (b.run_ids) and l.expires_at > now()
         ) then 4 else o.state end as status
  from run o where o.event_id = f.id
  union all
  select d.id, d.workflow_id, d.status
  from run_done d
  where d.event_id = f.id and d.id between f.first_run and f.first_run | ((1::bigint << 44) - 1)
  order by 1
  limit 100
) r on true
left join workflow w on w.id = r.workflow_id
order by r.id
