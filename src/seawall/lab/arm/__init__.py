"""What undoes a fault, held by somebody who outlives us.

Before a fault is done, `Armoury.arm` writes and syncs what undoes it, as data, and hands it to a watchdog: a process in
a session of its own, which undoes it when it is told, when its pipe closes (the kernel does that also after
``kill -9``), when the runner is silent, or at the deadline; again and again until it is undone.

``revert`` is what can be undone and how; ``file`` is what lies in the folder; ``armoury`` is the runner's side of it,
``watchdog`` the other one; ``leftover`` ends what a dead runner's rig left; ``panic`` is for people.
"""
