-- A queue's clock, by which whoever begins no run himself finds a place for one (kernel/placement.py): the first place that is ready,
-- without its priority (step: what one of priority is), but no more than `ahead` before what was begun last; and that, where nothing is
-- ready. As router.sql has it (virtual_now), for one queue: one probe of run_ready for each shard, whatever the tables were when the plan
-- was made.
create function queue_now(of_queue smallint, step bigint, ahead bigint) returns bigint language plpgsql stable
  set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
begin
  return (
    select coalesce(min(greatest(r.vt + step * w.priority, l.begun_vt - ahead)) filter (where r.vt is not null), max(l.begun_vt), 0)
    from queue q
    cross join lateral generate_series(0, q.shards - 1) as s (shard)
    left join shard_lease l on l.queue_id = q.id and l.shard = s.shard::smallint
    left join lateral (
      select o.vt, o.workflow_id from run o where o.queue_id = q.id and o.shard = s.shard::smallint and o.state = 0
      order by o.vt, o.id limit 1
    ) as r on true
    left join workflow w on w.id = r.workflow_id
    where q.id = of_queue
  );
end $$;
