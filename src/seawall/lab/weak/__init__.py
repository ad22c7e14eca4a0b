"""The same platform with a protection missing, through the same seams: what an incident is shown with, and what proves
that the lab's checkers can see.

``catalog`` lists the parts, ``making`` puts them where the real ones stand (``seawall.app.Making``), ``marker`` keeps
them out of every data folder that the lab didn't make. ``python -m seawall.lab.weak --parts NAME,… -- up …`` is
``seawall up`` of such a platform: each role's process is started by the same module, so that each builds its rooms with
what is weak in it. The product has no switch that leads here (tests/tidy/test_weak.py).
"""

from seawall.lab.weak.catalog import PARTS, WeakPart, program
from seawall.lab.weak.marker import mark

__all__ = ["PARTS", "WeakPart", "mark", "program"]
