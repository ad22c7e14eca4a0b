-- Up to which virtual time runs of a shard were begun, without their priority: the clock of its queue goes by that. What is ready
-- doesn't say it, for runs in hand are ready too, and one of them may take hours.
alter table shard_lease add column begun_vt bigint not null default 0;
