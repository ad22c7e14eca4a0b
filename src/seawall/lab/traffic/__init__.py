"""Sends events, and writes down what it sent and what was answered: ``traffic`` the plan and its pace, ``connection``
HTTP to one address, ``payload`` bodies that can be made again from a seed.
"""

from seawall.lab.traffic.traffic import BARE, Plan, Tally, Target, Traffic

__all__ = ["BARE", "Plan", "Tally", "Target", "Traffic"]
