-- Events that very many runs wait for.

-- Up to which run those that wait for the event have been asked. Null: there is nobody left to ask.
alter table correlation add column asked bigint;
create index correlation_broad on correlation (key, received_us) where asked is not null;
-- Open waits, in the order in which they are asked.
create index wait_listening on wait (key, run_id) where event_id is null and not over;
drop index wait_open;
-- Whether the run was put off since it failed, and not to wait: no event cuts that short.
alter table run add column retrying boolean not null default false;
