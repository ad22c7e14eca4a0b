-- Why an end is no success, and why an event isn't acted on: seawall.kernel.cause. Null: it is one, or from before.
alter table run_done add column cause smallint;
alter table event add column cause smallint;
