-- name: note
-- worker.beat, at most every few seconds for a step; primary keys of shard_lease and progress. A lease that is gone keeps nothing:
-- whoever runs the step now has told of another beginning, maybe. It is held as by a flush, so a takeover waits for this.
with told as (
  select * from unnest($1::smallint[], $2::smallint[], $3::bigint[], $4::bigint[], $5::text[], $6::integer[], $7::bytea[],
                       $8::bigint[])
    as t (queue_id, shard, epoch, run_id, name, nth, value, age_ms)
), held as materialized (
  select s.queue_id, s.shard, s.epoch from shard_lease s
  where (s.queue_id, s.shard, s.epoch) in (select queue_id, shard, epoch from told) and s.timeline = (select store_timeline())
  for key share of s
)
insert into progress as p (run_id, name, nth, value, at)
select t.run_id, t.name, t.nth, t.value, now() - t.age_ms * interval '1 millisecond'
from told t join held h on h.queue_id = t.queue_id and h.shard = t.shard and h.epoch = t.epoch
on conflict (run_id, name, nth) do update set value = excluded.value, at = excluded.at

-- name: last
-- worker, before each try of a step that has heartbeats; primary key of progress.
select value from progress where run_id = $1 and name = $2 and nth = $3

-- name: prune_ended
-- partition, each round, a stretch of the table after the other; primary keys of progress, step, run and run_done. Of steps that
-- have ended well, and of runs that have, or are gone. A run that failed may be tried again, for as long as it is there.
with part as materialized (
  select run_id, name, nth from progress where run_id > $1 order by run_id limit $2
), gone as (
  delete from progress p using part t
  where p.run_id = t.run_id and p.name = t.name and p.nth = t.nth
    and (exists (select 1 from step s where s.run_id = t.run_id and s.name = t.name and s.nth = t.nth and not s.failed)
         or ((select r.id from run r where r.id = t.run_id) is null
             and coalesce((select d.status from run_done d where d.id = t.run_id), 5) = 5))
  returning 1
)
select (select count(*) from gone) as gone, case when count(*) = $2 then max(run_id) else 0 end as next from part
