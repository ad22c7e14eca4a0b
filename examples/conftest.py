"""Gives the tests of these examples what they rehearse on: a PostgreSQL for all of them."""

from seawall.testing.plugin import rehearsal_stage, rehearse

__all__ = ["rehearsal_stage", "rehearse"]
