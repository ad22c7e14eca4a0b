-- Runs that wait without a slot.

-- How often the run was put away to wait: absolute, so that a repeated flush counts once. Above 0 it has steps of before.
alter table run add column waits integer not null default 0;
