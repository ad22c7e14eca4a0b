"""Seawall on one machine: the data folder, the checks at start, and the process tree under ``seawall up``.

``folder`` knows what lies where and who owns it; ``check`` says in one line what on this machine will bite;
``process`` keeps one child alive in the open; ``up`` is the parent: it owns ports and PostgreSQL, starts the roles,
and stops them in flow order. Nothing here touches an event.
"""
