"""Drives Seawall from outside, breaks what it stands on, and judges it.

The lab speaks to the product only as anybody may: HTTP, signals, files that the data folder documents. What it claims
rests on its own book, never on the product's word. In the order in which a run meets them:

``catalog/`` the experiments, ``experiment`` how such a file is read · ``rig/`` real parts (``part/``) behind a fault
proxy, zones (``zone/``), a platform of its own (``tree``, ``platform``), or one with a protection missing (``weak/``);
or in their place an installation of the user's own, by the commands that its file names (``target/``)
· ``traffic/`` what is sent · ``act``, ``load``, ``volume``, ``tune`` what an experiment does, ``arm/`` what undoes it
whatever happens · ``run/`` the runner, ``storm/`` random ones · ``probe``, ``expect``, ``claim`` what is looked at,
``checker/`` what became of each event · ``drill`` a fault that is hidden from people · ``record`` what stays,
``history`` what got worse, ``report/`` the page, ``matrix/`` which promise is shown where · ``demo`` all of it for a
newcomer.
"""
