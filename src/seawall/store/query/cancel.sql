-- name: mark
-- console, first of a cancellation, and workers for runs whose time is over; primary key of run. A run that waits ends at
-- once: nobody has it in hand. Others leave every index by which a worker finds runs: no refill that begins from now on takes
-- one. Runs are locked in the order of their ids, as everywhere. $2: why, of each, or of all one; $3: how they end, as ends_as. What came
-- of its waits stays for a day, here and below: it may be tried again, and has it to read still. `kin`, here and below: somebody may
-- wait for it, as any run ends with its parent. It is asked for while the run is there still: when its row has gone, the sweep forgets whose
-- child it was.
with found as materialized (
  select r.id, r.state, coalesce(u.why, ($2::text[])[1]) as why
  from unnest($1::bigint[], $2::text[]) u (id, why) join run r on r.id = u.id
  order by r.id for update of r
), gone as (
  delete from run r using found f where r.id = f.id and f.state = 1
  returning r.id, r.event_id, r.workflow_id, r.tenant, r.attempt, r.created_at, r.ticket, r.listens, f.why
), unheard as (
  delete from wait w using gone g where g.listens and w.run_id = g.id and w.event_id is null and not w.over
), done as (
  insert into run_done (id, event_id, workflow_id, tenant, status, cause, attempt, error, created_at)
  select id, event_id, workflow_id, tenant, $3::integer & 15, $3::integer >> 4, attempt, why, created_at from gone
  on conflict do nothing
), marked as (
  update run r set state = 9, cancelled = f.why, ends_as = $3, run_after = null from found f
  where r.id = f.id and f.state <> 1 and f.state <> 9
)
select f.id, g.event_id, g.ticket, g.id is not null as ended, exists (select 1 from run_child) as kin
from found f left join gone g on g.id = f.id

-- name: refills
-- console, after mark; no table, the locks that are held. Refills and flushes that are under way: each has its lock on
-- refill from before it reads anything until its end. When those of now have ended, no refill can take a marked run.
select coalesce(array_agg(distinct virtualtransaction), '{}') from pg_locks
where locktype = 'relation' and relation = 'refill'::regclass and mode = 'RowExclusiveLock' and granted
  and database = (select oid from pg_database where datname = current_database())

-- name: finish
-- console, when the refills of `mark` have ended; primary keys of run and refill. Ends those marked that nobody can have in
-- hand: no refill row names them.
with found as materialized (
  select r.id from run r
  where r.id = any($1::bigint[]) and r.state = 9 and r.id not in (select unnest(f.run_ids) from refill f)
  order by r.id for update of r
), gone as (
  delete from run r using found f where r.id = f.id
  returning r.id, r.event_id, r.workflow_id, r.tenant, r.attempt, r.created_at, r.ticket, r.listens, r.cancelled,
            coalesce(r.ends_as, 119) as ends_as
), unheard as (
  delete from wait w using gone g where g.listens and w.run_id = g.id and w.event_id is null and not w.over
), done as (
  insert into run_done (id, event_id, workflow_id, tenant, status, cause, attempt, error, created_at)
  select id, event_id, workflow_id, tenant, ends_as & 15, ends_as >> 4, attempt, cancelled, created_at from gone
  on conflict do nothing
)
select id, event_id, ticket, exists (select 1 from run_child) as kin from gone

-- name: ours
-- worker, each second, between two refills of its own; run_cancelling, which is empty mostly. Marked runs of shards in hand.
select r.id, r.cancelled, coalesce(r.ends_as, 119) as ends_as
from unnest($1::smallint[], $2::smallint[]) l (queue_id, shard)
join run r on r.queue_id = l.queue_id and r.shard = l.shard and r.state = 9
limit $3

-- name: end_ours
-- worker, for marked runs of its shards that it doesn't have in hand; primary keys of shard_lease and run. Nobody else can
-- have them: a lease that was taken from it has another epoch.
with held as materialized (
  select s.queue_id, s.shard
  from shard_lease s join unnest($1::smallint[], $2::smallint[], $3::bigint[]) l (queue_id, shard, epoch)
    on l.queue_id = s.queue_id and l.shard = s.shard and l.epoch = s.epoch
  where s.timeline = (select store_timeline())
  for key share of s
), found as materialized (
  select r.id from run r join held h on h.queue_id = r.queue_id and h.shard = r.shard
  where r.id = any($4::bigint[]) and r.state = 9
  order by r.id for update of r
), gone as (
  delete from run r using found f where r.id = f.id
  returning r.id, r.event_id, r.workflow_id, r.tenant, r.attempt, r.created_at, r.ticket, r.listens, r.cancelled,
            coalesce(r.ends_as, 119) as ends_as
), unheard as (
  delete from wait w using gone g where g.listens and w.run_id = g.id and w.event_id is null and not w.over
), done as (
  insert into run_done (id, event_id, workflow_id, tenant, status, cause, attempt, error, created_at)
  select id, event_id, workflow_id, tenant, ends_as & 15, ends_as >> 4, attempt, cancelled, created_at from gone
  on conflict do nothing
)
select id, event_id, ticket, exists (select 1 from run_child) as kin from gone
