-- What a number and a moment alone can't tell.

-- Numbers of changes come again in a store that lost its newest ones (a failover to a replica that lagged): a stamp that
-- is new with each change tells the two apart.
alter table source_version add column stamp uuid not null default gen_random_uuid();

-- How far a collector's clock was behind the store's when it was last heard. Of its events the store can't say otherwise
-- whether they came before a secret was revoked, or after.
alter table collector add column behind_us bigint not null default 0;
