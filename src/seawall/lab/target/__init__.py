"""Experiments against an installation of the user's own: nothing there is the lab's, and so nothing is done but what a
file says.

``file`` reads that file: where the installation is, and for each fault the commands that apply, verify and revert it.
``plan`` makes of an experiment one that does just that, or says what is missing; ``rig`` is what the runner asks, over
HTTP only, by ``look``; ``act`` runs the commands, each armed before it is run; ``flow`` sends to a source that is there
already.
"""

from seawall.lab.target.rig import open_rig

__all__ = ["open_rig"]
