"""Seawall takes events in over HTTP, runs durable Python workflows on them, and never loses an event that it accepted.

The rooms, in the order in which an event passes them: ``collector`` (socket) → ``journal`` (disk) → ``router`` →
``store`` (PostgreSQL) → ``worker`` → ``responder``. ``workflow`` is what users import, from here.
"""

__version__ = "0.1.0"
