-- name: identify
-- embedded, until a new or adopted server has proven to be ours; no table.
select current_setting('seawall.instance', true) as instance, current_setting('data_directory') as data

-- name: probe
-- embedded, twice a second; no table.
select 1

-- name: database_exists
-- embedded, each start of the server; pg_database.
select exists (select 1 from pg_database where datname = $1)

-- name: create_database
-- embedded, once in the life of a data folder.
create database seawall
