-- name: notify
-- store.hint, after a flush that ended or answered something, and each echo of a listener; no table. A hint is of no use
-- after a crash, so nobody waits for the disk (or a standby) until it is sent.
select set_config('synchronous_commit', 'off', true), pg_notify($1, payload) from unnest($2::text[]) as payload
