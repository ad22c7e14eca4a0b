"""Outlives an outage of Kafka: what it doesn't take waits on this disk, and is forwarded later, beside fresh records.

``joint`` puts it together. ``spool`` decides where a record goes, ``order`` for sources that need theirs kept.
``forward`` brings on what waits, ``errand`` a batch at a time, ``leftover`` what others left. ``settle`` says when a
record may be let go of here, and ``checkpoint`` keeps how far that is.
"""
