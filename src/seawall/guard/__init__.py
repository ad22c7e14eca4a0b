"""Protection that any room may use: ``supervisor`` (no loop can die or hang unseen) and ``lifecycle`` (signals, the
parent's pipe); ``breaker`` and ``dependency`` around what may fail, ``limiter`` and ``pace`` before what may be many;
``budget`` and ``retry`` (time and tries are promises, not habits); ``shed`` (what can be left out under load);
``outlet`` writes what this process says, and lets nobody wait for who reads it.
"""

from seawall.guard.lifecycle import Lifecycle
from seawall.guard.supervisor import Heart, Supervisor

__all__ = ["Heart", "Lifecycle", "Supervisor"]
