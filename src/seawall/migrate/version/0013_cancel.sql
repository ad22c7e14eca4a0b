-- Runs that are being cancelled: state 9, until whoever has them in hand has ended them. Why, when they are.
alter table run add column cancelled text;
create index run_cancelling on run (queue_id, shard) where state = 9;
