-- name: try_lock
-- partition, each round; an advisory lock. False: another housekeeper is at work.
select pg_try_advisory_lock(hashtext('seawall.partition'))

-- name: unlock
-- partition, after each round.
select pg_advisory_unlock(hashtext('seawall.partition'))

-- name: reached
-- calendar, each round; one row.
select reached_us from retention

-- name: reach
-- calendar, each round that moves it; one row.
update retention set reached_us = $1

-- name: be_brief
-- partition, first in each transaction here: how long it may queue for a lock, and hold one, in milliseconds.
select set_config('lock_timeout', $1, true), set_config('statement_timeout', $2, true)

-- name: partitions
-- partition, each round; pg_inherits.
select p.relname as parent, c.relname as name
from pg_inherits i join pg_class p on p.oid = i.inhparent join pg_class c on c.oid = i.inhrelid
where p.relnamespace = 'public'::regnamespace and p.relkind = 'p'
order by 1, 2

-- name: count_in_default
-- partition, before it makes a day's partition; primary key of the default partition.
select count(*) from (select 1 from {parent}_default where {key} >= '{lower}' and {key} < '{upper}' limit $1) as counted

-- name: lock_readers
-- partition, before it moves rows. Who reads looks first which partitions there are, then waits for the default one: let in
-- after the move it would look for the rows where they were, and find that a reply had never been made. Not its partitions.
lock table only {parent} in access exclusive mode

-- name: lock_default
-- partition, so that no row of the day joins the default partition between moving and attaching.
lock table {parent}_default in access exclusive mode

-- name: create_partition
-- partition. Made apart and attached: `partition of` would lock out every reader and writer of the whole table.
create table {partition} (like {parent} including defaults including constraints including storage)

-- name: move_from_default
-- partition, in the transaction that attaches; primary key of the default partition.
with moved as (delete from {parent}_default where {key} >= '{lower}' and {key} < '{upper}' returning *)
insert into {partition} select * from moved

-- name: attach
-- partition. Locks the default partition, not the table.
alter table {parent} attach partition {partition} for values from ('{lower}') to ('{upper}')

-- name: needed_by_event
-- partition, a condition in what follows: rows of a day that unfinished runs need; index run_event.
{key} in (select event_id from run where event_id >= '{lower}' and event_id < '{upper}'
          union all select event_id from deferred where event_id >= '{lower}' and event_id < '{upper}')

-- name: needed_or_heard
-- partition, a condition in what follows: as needed_by_event, and events that ended a wait of such a run, or by which it began
-- another one, of the same day: it may not have seen yet how that ended, and would begin it again; index wait_heard, primary key
-- of run, index event_source of the day.
{key} in (select event_id from run where event_id >= '{lower}' and event_id < '{upper}'
          union all select event_id from deferred where event_id >= '{lower}' and event_id < '{upper}'
          union all select event_id from wait where event_id >= '{lower}' and event_id < '{upper}'
          union all select id from {partition}
            where source_id = '00000000-0000-0000-0000-000000000000' and source = ':run' and {begun_by} in (
              select convert_to(id::text, 'UTF8') from run
              where id >= {lower_run} and id < {upper_run}))

-- name: needed_by_parent
-- partition, a condition in what follows: how a run ended that an unfinished one of the same day began; primary key of run, index
-- event_source.
event_id in (select id from event
             where id >= '{lower_event}' and id < '{upper_event}' and source_id = '00000000-0000-0000-0000-000000000000'
               and source = ':run' and {begun_by} in (
                 select convert_to(id::text, 'UTF8') from run
                 where id >= {lower_run} and id < {upper_run}))

-- name: needed_by_run
-- partition, a condition in what follows; primary key of run.
{key} in (select id from run where id >= '{lower}' and id < '{upper}')

-- name: needed_by_ticket
-- partition, a condition in what follows; a duplicate's ticket leads to an event of any day.
event_id in (select event_id from run union all select event_id from deferred)

-- name: needed_by_nobody
-- partition, a condition in what follows.
false

-- name: still_by_event
-- partition, a condition in prune_default: an unfinished run needs the row, or one that isn't made yet; index run_event.
(exists (select 1 from run where run.event_id = {parent}_default.{key})
 or exists (select 1 from deferred where deferred.event_id = {parent}_default.{key}))

-- name: still_or_heard
-- partition, a condition in prune_default: as still_by_event, or its wait does, or it began another run by it; index wait_heard,
-- primary key of run.
(exists (select 1 from run where run.event_id = {parent}_default.{key})
 or exists (select 1 from deferred where deferred.event_id = {parent}_default.{key})
 or exists (select 1 from wait where wait.event_id = {parent}_default.{key})
 or exists (select 1 from run where run.id = case when {parent}_default.source = ':run'
              then convert_from({begun_by}, 'UTF8')::bigint end))

-- name: still_by_parent
-- partition, a condition in prune_default: an unfinished run began it; primary keys of event, by day, and run.
exists (select 1 from event e join run r on r.id = case when e.source = ':run'
          then convert_from({begun_by}, 'UTF8')::bigint end
        where e.id = {parent}_default.event_id)

-- name: still_by_run
-- partition, a condition in prune_default; primary key of run.
exists (select 1 from run where run.id = {parent}_default.{key})

-- name: still_by_ticket
-- partition, a condition in prune_default; index run_event.
(exists (select 1 from run where run.event_id = {parent}_default.event_id)
 or exists (select 1 from deferred where deferred.event_id = {parent}_default.event_id))

-- name: still_by_nobody
-- partition, a condition in prune_default.
false

-- name: size_of_needed
-- partition, before it drops, without a lock; index run_event or primary key of run.
select count(*) as rows, coalesce(sum(weight), 0)::bigint as bytes
from (select {weight} as weight from {partition} where {needed} limit $1) as counted

-- name: detach
-- partition. Locks the whole table, briefly: `concurrently` isn't there for tables with a default partition.
alter table {parent} detach partition {partition}

-- name: carry_over
-- partition, in the transaction that detaches; index run_event or primary key of run.
insert into {parent}_default select * from {partition} where {needed} on conflict do nothing

-- name: drop_partition
-- partition, in the transaction that detaches.
drop table {partition}

-- name: prune_default
-- partition, each round, in batches; primary key of the default partition. Both its id and its stamp must be old: an
-- id can come from a wrong clock.
delete from {parent}_default where {key} = any(array(
  select {key} from {parent}_default
  where {key} < '{upper}' and {stamp} < $1 and not ({still}) limit $2
))

-- name: prune_notes
-- partition, each round, in batches; a small table.
delete from router_note where ctid = any(array(select ctid from router_note where at < $1 limit $2))
