-- Events that ended waits of unfinished runs: they are kept until those runs have read them, however long that takes.
create index wait_heard on wait (event_id) where event_id is not null;
