-- Since when a version of a workflow takes no new runs for want of workers: none was seen with it for long, and nobody left it out.
alter table workflow add column lapsed_at timestamptz;
