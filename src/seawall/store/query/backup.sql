-- name: hold_still
-- export, first in its transaction: all that follows sees one moment, also in pg_dump, and waiting for it is no offence.
set transaction isolation level repeatable read, read only

-- name: be_patient
-- export, second in its transaction: it stays open, and idle, for as long as pg_dump works.
set local idle_in_transaction_session_timeout = 0

-- name: export
-- export, third in its transaction: the name under which others see the same moment.
select pg_export_snapshot()

-- name: is_migrated
-- export, before it looks for positions: a store that never ran has no tables.
select to_regclass('public.log_position') is not null

-- name: oldest_positions
-- export, once; the small table log_position. What is still to be read of each log begins here.
select distinct on (log_id) log_id, segment, "offset", salt from log_position order by log_id, segment, "offset"
