"""Applies our schema: plain SQL files in order, each in one transaction, one process at a time.

Simple for now: a later runner brings phases, linting and resumable concurrent builds behind the same files.
"""

from seawall.migrate.runner import Settings, Version, apply, versions

__all__ = ["Settings", "Version", "apply", "versions"]
