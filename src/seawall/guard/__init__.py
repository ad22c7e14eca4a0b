"""Protection that any room may use. Now: ``supervisor`` (no loop can die or hang unseen) and ``lifecycle`` (signals,
the parent's pipe, shutdown within a budget). Breakers, bulkheads, throttles and flags join here.
"""

from seawall.guard.lifecycle import Lifecycle
from seawall.guard.supervisor import Heart, Supervisor

__all__ = ["Heart", "Lifecycle", "Supervisor"]
