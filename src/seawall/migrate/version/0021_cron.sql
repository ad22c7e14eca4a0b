-- Workflows that begin by themselves.

create table cron (
  name        text primary key,                  -- of its workflow too
  expression  text not null,
  zone        text not null,
  overlap     text not null,                     -- skip, queue, cancel: what becomes of a moment while the former run goes on
  catch_up    text not null,                     -- none, one, all: what becomes of moments at which nobody was there
  tenant      text,                              -- null: every tenant that has a source
  paused      boolean not null default false
);

-- One for each tenant of each: whoever begins a run of it holds its row.
create table cron_line (
  name      text not null references cron (name) on delete cascade,
  tenant    text not null,
  moment    timestamptz not null,                -- the next one
  due_at    timestamptz not null,                -- when that is looked at
  blocked   boolean not null default false,      -- it waits for the former run
  run_id    bigint,                              -- the former run
  last      timestamptz,                         -- its moment
  begun     bigint not null default 0,
  skipped   bigint not null default 0,
  missed    bigint not null default 0,
  primary key (name, tenant)
) with (fillfactor = 70);
create index cron_due on cron_line (due_at);

-- Moments that had their run: none has two.
create table cron_moment (
  name    text not null,
  tenant  text not null,
  moment  timestamptz not null,
  run_id  bigint not null,
  primary key (name, tenant, moment)
);
