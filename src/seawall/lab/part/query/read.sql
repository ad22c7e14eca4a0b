-- Called by Postgres.read, with psql, also on a replica. One row, by its primary key.
select word from proof where one = 1;
