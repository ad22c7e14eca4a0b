-- Two replicas that are promoted one after the other, the second without ever having followed the first, are in timelines of
-- the same number. So what is begun in a timeline leaps by chance, and has a name of its own.

-- What the server's history is called since the timeline was entered: those who remember another name know nothing of it.
alter table store_life add column history uuid not null default gen_random_uuid();

create or replace function run_number_base() returns bigint language plpgsql volatile as $$
declare
  here constant integer := store_timeline();
  began constant timestamptz := pg_postmaster_start_time();
  before store_life%rowtype;
begin
  if not exists (select 1 from store_life where timeline = here and started_at = began) then
    select * into before from store_life for update;
    if before.timeline <> here then
      update store_life set timeline = here, started_at = began, since = now(), history = gen_random_uuid();
      -- 16 million, and up to sixteen times that: two promoted replicas hardly choose the same, and there is room for a
      -- hundred thousand leaps. One whose transaction is rolled back is leapt all the same.
      perform setval('run_number', nextval('run_number') + 16777216 + floor(random() * 268435456)::bigint);
    elsif before.started_at <> began then
      update store_life set started_at = began, since = now();
      perform setval('run_number', nextval('run_number') + 16777216);
    end if;
  end if;
  return 0;
end $$;

-- The name, once the server's life is known.
create function store_history() returns uuid language plpgsql volatile as $$
begin
  perform run_number_base();
  return (select history from store_life);
end $$;
