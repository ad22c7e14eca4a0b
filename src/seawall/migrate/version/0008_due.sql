-- Runs whose time has come, by queue: a worker must not read over those of queues that it doesn't serve.
create index run_due on run (queue_id, run_after) where state = 1;
drop index run_timer;
