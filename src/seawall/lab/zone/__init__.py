"""Zones: hosts of the lab's own, each a network namespace with two ways out: one to the balancer, one to all else.

``net`` makes, cuts, heals and removes them; ``host`` runs a collector in each, ``balancer`` sends requests to them and
``gate`` is where they find Kafka, Redis and the store. ``rig`` is a rig with all of it (``rig: seawall.lab.zone.rig``),
``act`` what experiments do to it. Linux, root, and iproute2; nothing leaves the machine.
"""
