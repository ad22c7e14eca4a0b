-- name: watch_lease
-- watch, every few seconds; primary key. Whoever gets a row looks at what all machines share.
insert into watch_lease as w (owner, expires_at) values ($1, now() + $2 * interval '1 second')
on conflict (one) do update set owner = excluded.owner, expires_at = excluded.expires_at
where w.owner = $1 or w.expires_at < now()
returning true

-- name: leave_watch
-- watch, when it stops; primary key.
delete from watch_lease where owner = $1

-- name: queues
-- watch, every few seconds; the small tables queue, refill and shard_lease, and run_ready: at most $1 ready runs of each queue.
-- Runs in hand are ready ones too: they are known by the refill rows of leases that live. How long the next ones wait is
-- looked for among the first $2 of each shard, and only those count that never ran: of others nobody knows since when they
-- have been ready.
with hand as materialized (
  select unnest(b.run_ids) as id from refill b join shard_lease l using (queue_id, shard, epoch) where l.expires_at > now()
)
select q.id, q.name, q.paused, q.latency_ms,
       (select count(*) from (select 1 from run r
                              where r.queue_id = q.id and r.state = 0 and r.shard >= 0 and r.id not in (select id from hand)
                              order by r.shard, r.vt, r.id limit $1) waits) as waiting,
       (select extract(epoch from max(now() - next.created_at))::float8
        from generate_series(0, q.shards - 1) s(shard) cross join lateral (
          select f.created_at from (select r.created_at, r.waits, r.attempt from run r
                                    where r.queue_id = q.id and r.shard = s.shard::smallint and r.state = 0
                                      and r.id not in (select id from hand)
                                    order by r.vt, r.id limit $2) f
          where f.waits = 0 and f.attempt = 0 limit 1
        ) next) as oldest_s
from queue q order by q.name limit $3

-- name: spreads
-- watch, every few seconds; primary key of queue_sample, its newest part.
select s.queue_id, s.began, count(*) as count, percentile_disc(array[0.5, 0.99]) within group (order by s.ms) as ms
from (
  select q.queue_id, true as began, unnest(q.starts_ms) as ms
  from queue_sample q where q.at > now() - $1 * interval '1 second'
  union all
  select q.queue_id, false, unnest(q.ends_ms) from queue_sample q where q.at > now() - $1 * interval '1 second'
) s
group by s.queue_id, s.began

-- name: lapsed
-- watch, every few seconds; the small table workflow. Those of which no version takes new runs since none was seen with a worker.
select distinct on (w.name) w.name, w.pattern, w.lapsed_at from workflow w
where w.lapsed_at is not null and not exists (select 1 from workflow a where a.name = w.name and a.active)
order by w.name, w.lapsed_at desc limit $1

-- name: open_alerts
-- watch, when it starts; alert_open. What this machine had raised and not cleared.
select role, name, labels, summary, unaffected, cure, raised_at from alert
where machine = $1 and cleared_at is null order by raised_at limit $2

-- name: raise_alert
-- watch, for each that begins; alert_open. Raising it twice keeps one.
insert into alert (machine, role, name, labels, summary, unaffected, cure, raised_at)
values ($1, $2, $3, $4, $5, $6, $7, $8)
on conflict (machine, role, name, labels) where cleared_at is null do nothing

-- name: clear_alert
-- watch, for each that ends; alert_open.
update alert set cleared_at = greatest(raised_at, $5)
where machine = $1 and role = $2 and name = $3 and labels = $4 and cleared_at is null

-- name: page_alerts
-- console, when asked; alert_raised. Those that were raised since, over or not, the newest first.
select id, machine, role, name, labels, summary, unaffected, cure, raised_at, cleared_at from alert
where raised_at > $1 and (raised_at, id) < ($2, $3)
order by raised_at desc, id desc limit $4

-- name: prune_alerts
-- housekeeping; alert_raised. Only those that are over.
delete from alert where id in (
  select id from alert where raised_at < $1 and cleared_at is not null order by raised_at limit $2
)
