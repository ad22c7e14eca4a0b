-- name: source_ids
-- console, where a list is narrowed to sources; unique source_name, else a small table is read. Names come again.
select id from source where name = any ($1::text[]) order by removed_at is not null, created_at desc limit 100

-- name: workflow_ids
-- console, where runs are narrowed to workflows; the small table workflow. Null is any of them.
select coalesce(array_agg(id), '{}') from workflow
where ($1::text[] is null or name = any ($1)) and ($2::text[] is null or version = any ($2))

-- name: queue_ids
-- console, where runs are narrowed to queues; unique (name).
select coalesce(array_agg(id), '{}') from queue where name = any ($1::text[])
