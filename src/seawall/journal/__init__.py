"""Keeps accepted events: one log per collector process, durable before it answers, read by position.

``Log`` takes records (one write and one sync per batch), ``SyncedPublisher`` tells other processes how far it is
synced, and ``LogReader`` reads it there, also when its writer is dead. ``discover`` finds logs. The bytes are in
``frame.py``; ``writer.py`` decides what a failing disk means; ``filesystem.py`` has the only syncs.
"""

from seawall.journal.filesystem import LocalFilesystem
from seawall.journal.log import Log
from seawall.journal.publisher import SyncedPublisher
from seawall.journal.reader import LogReader, discover
from seawall.journal.settings import Settings

__all__ = ["LocalFilesystem", "Log", "LogReader", "Settings", "SyncedPublisher", "discover"]
