-- What drains at which rate, and who decides it.

-- One process decides for all drains at a time: the holder of this row.
create table governor (
  only_row    boolean primary key default true check (only_row),
  owner       uuid,
  expires_at  timestamptz not null default '-infinity',
  act         text not null default 'hold',      -- raise, hold or cut: what it did last
  share       float8,                            -- the worst signal, as a share of what is allowed
  said        text not null default '',          -- the worst signal, in words
  reserve     float8,                            -- level of the reserve; null: never measured
  decided_at  timestamptz
) with (fillfactor = 50);
insert into governor default values;

-- Work that is done at a rate: a throttled queue, a replay, old ranges of logs.
create table drain (
  name      text primary key,                    -- queue:NAME, replay:ID, backlog
  queue_id  smallint unique references queue (id),
  rate      float8 not null check (rate > 0),    -- a second, now
  floor     float8 not null check (floor > 0),
  goal      float8 not null check (goal > 0),
  slope     float8 check (slope > 0),            -- most that the rate may rise by in a second; null: as fast as it may
  revision  bigint not null default 0,           -- of what was set by hand
  set_by    text not null default '',
  set_at    timestamptz not null default now()
) with (fillfactor = 50);

-- What a worker has seen of its work since it started, for whoever judges how the work goes.
alter table worker
  add column tried   bigint not null default 0,            -- executions that ended, failed ones among them
  add column failed  bigint not null default 0,
  add column broken  text[] not null default '{}';         -- its open breakers
