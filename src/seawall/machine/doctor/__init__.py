"""Looks for what bit others: a machine, a store or a setting that works today and breaks in an outage.

Each check is a pure function from what was read to findings, so that every misconfiguration it knows can be shown to it
in a test; ``examine`` reads. A finding names what is wrong, the incident that it leads to, and the cure.
"""

from seawall.machine.doctor.examine import examine
from seawall.machine.doctor.finding import Finding, Severity

__all__ = ["Finding", "Severity", "examine"]
