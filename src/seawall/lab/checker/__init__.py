"""What became of each event, by the lab's own book and never by the product's word.

``ledger`` keeps what was sent and answered, ``effect`` what steps did, ``verdict`` is the pure comparison of both with
what is there, and ``verify`` reads the platform for it.
"""
