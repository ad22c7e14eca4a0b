"""Runs one experiment, so that its verdict can be believed: Chaos Toolkit plays the file, what is here guards it.

``session`` is one run, from the first look at the rig to its record; `seawall lab run` and plain ``chaos run`` (through
`seawall.lab.control`) both go through it. ``faults`` arms and proves what is broken, ``sampler`` measures, ``sentry``
ends the run when it must end, ``steady`` asks the hypothesis, ``times`` and ``judge`` conclude, ``toolkit`` is the seam
to Chaos Toolkit's library, ``show`` draws in the terminal, ``runner`` is what the command line calls.
"""
