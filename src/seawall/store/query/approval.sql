-- name: open
-- worker, when a run asks people, and when it looks how that stands; primary keys of approval and run. There is one of it,
-- however often it is asked for.
with known as (
  select * from approval where run_id = $1 and name = $2 and nth = $3
), opened as (
  insert into approval (run_id, name, nth, key, question, people, expires_at)
  select r.id, $2, $3, $4, $5, $6, now() + $7::bigint * interval '1 microsecond' from run r
  where r.id = $1 and not exists (select 1 from known)
  on conflict do nothing
  returning *
)
select id, nonce, question, key, people, asked_at, expires_at, over, decided_at, approved, by, via, address, comment,
       expires_at <= clock_timestamp() as late
from (select * from known union all select * from opened) a

-- name: end_late
-- worker, behind open, when the time is over; primary key of approval. Whoever decides writes the same row, where it says
-- neither: exactly one of both does.
update approval set over = true
where run_id = $1 and name = $2 and nth = $3 and decided_at is null and not over and expires_at <= clock_timestamp()

-- name: lock_run
-- collector and console, first of a decision; primary key of run. Cancelling, ending and putting away write this row: each of
-- them is before the decision, or behind it and sees it. A flush of many runs waits for it, so a process that stands still here is
-- cut off soon. No row: it has ended.
select state, set_config('idle_in_transaction_session_timeout', '2000', true) from run where id = $1 for update

-- name: decide
-- collector and console, behind lock_run; approval_id. No row: it isn't open any more.
update approval
set decided_at = clock_timestamp(), approved = $4, by = $5, via = $6, address = $7, comment = $8
where id = $1 and run_id = $2 and nonce = $3 and decided_at is null and not over and expires_at > clock_timestamp()
returning id

-- name: find
-- collector and console; approval_id, primary keys of run and run_done.
select a.question, a.people, a.expires_at, a.over, a.decided_at, a.approved, a.by, a.via, a.address, a.comment,
       a.expires_at <= clock_timestamp() as late, r.state as run_state,
       case when r.state = 9 then coalesce(r.ends_as, 7) & 15 else d.status end as run_status
from approval a left join run r on r.id = a.run_id left join run_done d on d.id = a.run_id
where a.id = $1 and a.run_id = $2 and a.nonce = $3

-- name: of_run
-- console and rehearsals, when a run's requests are decided by number or alone; primary key of approval, which has few of a run.
-- Those that somebody may decide, or, where there is none, those that were open; $3: only the one of this number.
select a.id, a.nonce, a.question, a.decided_at is null and not a.over and a.expires_at > clock_timestamp() as open
from approval a where a.run_id = $1 and ($3::bigint is null or a.id = $3)
order by open desc, a.id desc limit $2

-- name: page
-- console, GET /v1/approvals; approval_id backwards, primary keys of run, run_done and workflow. Those of every state.
select a.id, a.run_id, a.name, a.question, a.people, a.asked_at, a.expires_at, a.over, a.decided_at, a.approved, a.by, a.via,
       a.address, a.comment, a.expires_at <= clock_timestamp() as late, r.state as run_state, d.status as run_status,
       w.name as workflow, coalesce(r.tenant, d.tenant) as tenant
from approval a left join run r on r.id = a.run_id left join run_done d on d.id = a.run_id
left join workflow w on w.id = coalesce(r.workflow_id, d.workflow_id)
where a.id < $1
order by a.id desc limit $2

-- name: page_open
-- console, GET /v1/approvals; approval_open backwards, primary keys of run and workflow. Those that somebody may decide now.
select a.id, a.run_id, a.name, a.question, a.people, a.asked_at, a.expires_at, a.over, a.decided_at, a.approved, a.by, a.via,
       a.address, a.comment, false as late, r.state as run_state, null::smallint as run_status, w.name as workflow, r.tenant
from approval a join run r on r.id = a.run_id join workflow w on w.id = r.workflow_id
where a.id < $1 and a.decided_at is null and not a.over and a.expires_at > clock_timestamp() and r.state <> 9
order by a.id desc limit $2

-- name: prune
-- partition, each round, in batches; approval_id, primary keys of run and run_done, probed for each: joined, all pending runs were
-- read. Requests so old whose run is gone: one that has ended may be tried again for as long as it is there, and asks on.
delete from approval where ctid = any (array(
  select a.ctid from approval a
  where a.asked_at < $1 and (select r.id from run r where r.id = a.run_id) is null
    and (select d.id from run_done d where d.id = a.run_id) is null
  order by a.id limit $2
))
