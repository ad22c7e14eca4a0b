-- Called by Postgres.unsettled on the primary, with psql. A view of at most max_wal_senders rows.
select coalesce(string_agg(state || ' ' || case when replay_lsn >= pg_current_wal_lsn() then 'level' else 'behind' end, ','), 'none')
  from pg_stat_replication;
