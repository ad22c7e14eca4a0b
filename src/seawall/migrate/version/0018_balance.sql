-- Which queues a worker serves now, said each second: shards are shared among those that said so lately. `own`: it is a
-- process of just these queues, and others leave them to it.
alter table worker
  add column serves    smallint[] not null default '{}',
  add column own       boolean not null default false,
  add column serves_at timestamptz not null default '-infinity';
