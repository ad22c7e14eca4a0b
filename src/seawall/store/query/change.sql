-- name: insert_change
-- whoever changes something, in its transaction; and whoever merges what was noted elsewhere. Unique key. No conflict
-- target is named, since the worker's role may insert and not read.
insert into change (key, at, kind, what, by, before, after, why) values ($1, $2, $3, $4, $5, $6, $7, $8)
on conflict do nothing

-- name: page_changes
-- console, a page of the timeline, newest first; index change_at.
select id, key, at, kind, what, by, before, after, why from change
where at >= $1 and (at, id) < ($2, $3)
order by at desc, id desc limit $4

-- name: page_changes_of
-- console, the same of one kind, and of one thing unless it is ''; index change_what, or change_at where nothing is named.
select id, key, at, kind, what, by, before, after, why from change
where at >= $1 and (at, id) < ($2, $3) and kind = $5 and ($6 = '' or what = $6)
order by at desc, id desc limit $4

-- name: is_recording
-- migrate, after each version: the timeline came with one of them; pg_class.
select to_regclass('public.change') is not null

-- name: prune_changes
-- housekeeping; index change_at.
delete from change where id in (select id from change where at < $1 order by at, id limit $2)

-- name: prune_change_rows
-- housekeeping, beyond what is kept; index change_at. The oldest go.
delete from change where id in (
  select id from change order by at, id limit least($2, greatest(0, (select count(*) from change) - $1))
)
