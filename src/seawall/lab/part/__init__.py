"""Real parts, started on this machine by the lab: Kafka, Redis, PostgreSQL, and a proxy that breaks the lines to them.

Each part is a folder with its data, logs, ports and pid files, and listens on loopback only; nothing outside of the
folder is touched, and what must be fetched comes through the machine's own package clients, said before with its size.
A part is a context manager: whatever becomes of the process that entered it, its nodes end. Through ``up`` instead they
outlive the caller, until ``down``. Only processes whose start time stands in our own pid files are ever signalled.

``part`` is what all have alike; ``kafka``, ``redis``, ``postgres`` and ``proxy`` are the parts; ``fetch`` brings their
programs, ``doctor`` says what is missing, ``proof`` starts each once and uses it. All of this blocks: from a coroutine,
call it through ``asyncio.to_thread``. Linux only.
"""
