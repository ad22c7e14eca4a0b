-- Called by Postgres.primary, with psql. No table is read.
select case when pg_is_in_recovery() then 'replica' else 'primary' end;
