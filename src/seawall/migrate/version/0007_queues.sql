-- Slots of queues: how many runs of one may be in hand at once, and how many are kept free for it. Null: nobody said.
alter table queue
  add column reserved      integer check (reserved >= 0),       -- as an app declares it
  add column slots_max     integer check (slots_max >= 1),
  add column reserved_set  integer check (reserved_set >= 0),   -- by hand, in place of it
  add column slots_max_set integer check (slots_max_set >= 1),
  add column paused        boolean not null default false;
