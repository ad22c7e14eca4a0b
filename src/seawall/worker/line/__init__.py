"""Lines: runs that wait for others of their key, or for their turn under a rate (docs/decisions/0022-limits.md).

``turnstile`` decides who goes on, ``look`` knows where somebody may, ``admission`` is the loop that lets them in, and
``keying`` finds lines for runs that were made without.
"""
