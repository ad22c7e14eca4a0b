"""Looks at a target beside each other: one that hangs, as what is cut off does, keeps nobody waiting who measures."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait

WAIT_S = 0.3
"""Abort conditions are looked at twice a second, whatever doesn't answer there."""

Found = Mapping[str, float]


class Looks:
    """Each in a thread of its own, one at a time. From the first ``sample`` to ``close``; any thread may ask.

    Args:
        looks: By a name; each is bounded by itself, and raises nothing.
    """

    def __init__(self, looks: Mapping[str, Callable[[], Found]]) -> None:
        self._looks = looks
        self._going: dict[str, Future[Found]] = {}
        self._pool = ThreadPoolExecutor(len(looks), thread_name_prefix="lab.look")
        self._lock = threading.Lock()

    def sample(self) -> dict[str, Found]:
        """What those have found that have ended by now. One that takes longer is told by the sample after its end."""
        with self._lock:
            for name, look in self._looks.items():
                if name not in self._going:
                    self._going[name] = self._pool.submit(look)
            wait(self._going.values(), WAIT_S)
            ended = [name for name, future in self._going.items() if future.done()]
            return {name: self._going.pop(name).result() for name in ended}

    def close(self) -> None:
        """On return none goes on. Harmless when called twice."""
        self._pool.shutdown(cancel_futures=True)
