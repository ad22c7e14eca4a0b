-- Called by Postgres.write, with psql; :'word' is what is kept. One row of its own table.
create table if not exists proof (one int primary key, word text not null);
insert into proof values (1, :'word') on conflict (one) do update set word = excluded.word;
