"""Drives Seawall from outside and judges it: traffic with a ledger, and the verdict on what became of each event.

The lab speaks to the product only as anybody may: HTTP, signals, files that the data folder documents. What it claims
rests on its own ledger, never on the product's word: ``ledger`` keeps what was sent and answered, ``traffic`` sends,
``verdict`` is the pure comparison, ``verify`` reads the platform for it, ``demo`` shows all of it to a newcomer.
"""
