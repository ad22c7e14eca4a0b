-- name: worker_role_exists
-- migrate, each start; pg_roles.
select exists (select 1 from pg_roles where rolname = 'seawall_worker')

-- name: may_create_role
-- migrate, when the role is missing; pg_roles.
select rolcreaterole or rolsuper from pg_roles where rolname = current_user

-- name: create_worker_role
-- migrate, once for each server.
create role seawall_worker login

-- name: revoke_all
-- migrate, each start: what a former version granted goes.
revoke all on all tables in schema public from seawall_worker

-- name: grant_schema
-- migrate, each start.
grant usage on schema public to seawall_worker

-- name: grant_read
-- migrate, each start. What a run needs to know.
grant select on event, duplicate, ticket, queue, workflow, schema_version, correlation, log_progress, drain,
  workflow_hand to seawall_worker

-- name: grant_all
-- migrate, each start. What a worker owns.
grant select, insert, update, delete on run, run_done, run_until, run_child, step, shard_lease, lease_taken, refill, reply, worker,
  wait, progress, rate to seawall_worker

-- name: grant_register
-- migrate, each start. A worker registers its workflows and their queues.
grant insert, update on workflow, queue to seawall_worker

-- name: grant_wait
-- migrate, each start. A worker says by what it waits, and knows how far a collector's clock is behind.
grant select, insert on wait_shape to seawall_worker;
grant select (behind_us) on collector to seawall_worker

-- name: grant_begin
-- migrate, each start. A worker begins runs by itself, each with an event of its own, for tenants that have sources.
grant select, insert, update, delete on cron, cron_line, cron_moment to seawall_worker;
grant insert on event to seawall_worker;
grant select (tenant, removed_at) on source to seawall_worker

-- name: grant_ask
-- migrate, each start. A worker asks people and says when their time is over; what they decide is not its to write.
grant select, insert (run_id, name, nth, key, question, people, expires_at), update (over) on approval to seawall_worker

-- name: grant_count
-- migrate, each start. A worker says who held its slots.
grant select, insert, update on slot_use to seawall_worker;
grant select, insert on queue_sample to seawall_worker

-- name: grant_tell
-- migrate, each start. A worker that runs alone tells of its starts and settings; policy worker_tells lets it say nothing
-- else, and it reads nobody's.
grant insert on change to seawall_worker

-- name: grant_sequences
-- migrate, each start. Whoever is first to number a run in another life of the server makes the numbers leap.
grant usage on all sequences in schema public to seawall_worker;
grant update on sequence run_number to seawall_worker;
grant select, update on store_life to seawall_worker
