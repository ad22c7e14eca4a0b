-- name: begin
-- worker.refill, for runs of workflows with a total timeout, before their code is called; primary keys of run and run_until. Only
-- the first start counts. One that is being ended needs none any more.
insert into run_until (run_id, until, total_ms, parent_id)
select r.id, now() + u.total_ms * interval '1 millisecond', u.total_ms, u.parent_id
from unnest($1::bigint[], $2::bigint[], $3::bigint[]) u (run_id, total_ms, parent_id)
join run r on r.id = u.run_id and r.state <> 9
on conflict (run_id) do nothing

-- name: look
-- worker.ending, twice a second; the first rows of run_until_due and of the primary key of run_child. Whether there is anything for
-- what follows: mostly there isn't, and then nothing else is asked.
select coalesce((select min(until) from run_until) <= now(), false) as late,
       (select parent_id from run_child order by parent_id, run_id limit 1) is not null as kin

-- name: due
-- worker.ending, when a moment has come, before cancel.mark in one transaction; run_until_due, primary key of run. Runs whose time is over,
-- wherever they are; of several workers each finds others. A run's row that somebody has locked is being flushed or woken:
-- it isn't waited for, and comes again.
with late as materialized (
  select ctid as row, run_id, total_ms, parent_id from run_until
  where until <= now() order by until limit $1 for update skip locked
), found as materialized (
  select r.id from run r where r.id = any (array(select run_id from late)) order by r.id for update skip locked
), forgotten as (
  delete from run_until where ctid = any (array(
    select l.row from late l
    where l.run_id in (select id from found) or (select r.id from run r where r.id = l.run_id) is null
  ))
)
select l.run_id, l.total_ms, l.parent_id from late l join found f on f.id = l.run_id order by l.run_id

-- name: prune_ended
-- partition, each round, a stretch of the table after the other; primary keys of run_until and run. Those of runs that have ended.
with part as materialized (
  select run_id from run_until where run_id > $1 order by run_id limit $2
), gone as (
  delete from run_until u using part p
  where u.run_id = p.run_id and (select r.id from run r where r.id = p.run_id) is null
  returning 1
)
select (select count(*) from gone) as gone, case when count(*) = $2 then max(run_id) else 0 end as next from part
