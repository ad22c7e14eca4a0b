"""How bench/peers.py talks with a peer's program: a command a line, an answer of JSON a line.

``drain N``: enqueue N and see them all ended; ``low N``: N of them, 27 a second, for the time until they begin.
"""

import json
import os
import struct
import sys
import time

PAUSE_S = 0.037
"""Between two at low load."""

PATIENCE_S = 120.0


def serve(settings, drain, low):
    """Answer commands until there are none. ``settings``: how the peer is tuned, for people."""
    print(json.dumps({"settings": settings}), flush=True)
    for line in sys.stdin:
        word, count = line.split()
        found = drain(int(count)) if word == "drain" else low(int(count))
        print(json.dumps(found), flush=True)


def spread(seconds):
    """Median and 99th percentile in milliseconds."""
    seconds = sorted(seconds)
    at = [seconds[min(len(seconds) - 1, int(len(seconds) * p))] * 1000 for p in (0.5, 0.99)]
    return {"p50_ms": at[0], "p99_ms": at[1]}


class Tally:
    """Counts what workers did, in whatever process: eight bytes appended to a file each, the seconds until it began.

    A counter in the broker would cost each of them a round trip, which isn't the peer's own.
    """

    def __init__(self, path):
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)

    def add(self, sent):
        os.write(self._file, struct.pack("d", time.time() - sent))

    @property
    def count(self):
        return os.fstat(self._file).st_size // 8

    def wait(self, count):
        until = time.time() + PATIENCE_S
        while self.count < count:
            if time.time() > until:
                raise TimeoutError(f"{self.count} of {count}")
            time.sleep(0.002)

    def last(self, count):
        """The seconds of the last so many."""
        data = os.pread(self._file, 8 * count, 8 * (self.count - count))
        return [value for (value,) in struct.iter_unpack("d", data)]


def tallied(settings, tally, send):
    """Serve with a broker's ``send(payload)``."""

    def drain(count):
        before, begin = tally.count, time.perf_counter()
        for _ in range(count):
            send({"t": time.time(), "note": "x" * 120})
        enqueued = time.perf_counter() - begin
        tally.wait(before + count)
        return {"runs": count, "seconds": time.perf_counter() - begin, "enqueue_s": enqueued}

    def low(count):
        before = tally.count
        for _ in range(count):
            send({"t": time.time()})
            time.sleep(PAUSE_S)
        tally.wait(before + count)
        return spread(tally.last(count))

    serve(settings, drain, low)
