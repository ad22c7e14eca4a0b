"""Where a task stands: ``Task.get_stack`` shows only the outermost coroutine of a suspended task, and the line that
hangs is the innermost."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Iterator
from types import FrameType

DEPTH_MAX = 50


def stack_of(task: asyncio.Task[object]) -> list[str]:
    """``file:line function``, outermost first, down to the await at which the task is suspended."""
    lines: list[str] = []
    waiting: object = task.get_coro()
    while waiting is not None and len(lines) < DEPTH_MAX:
        frame = _frame(waiting)
        if frame is not None:
            code = frame.f_code
            lines.append(f"{code.co_filename}:{frame.f_lineno} {code.co_name}")
        waiting = _awaited(waiting)
    return lines


def stacks_of_threads() -> Iterator[tuple[str, list[str]]]:
    """Each thread's name, and where it stands: ``file:line function``, outermost first."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    for ident, innermost in sys._current_frames().items():
        lines: list[str] = []
        frame: FrameType | None = innermost
        while frame is not None and len(lines) < DEPTH_MAX:
            lines.append(f"{frame.f_code.co_filename}:{frame.f_lineno} {frame.f_code.co_name}")
            frame = frame.f_back
        yield names.get(ident, str(ident)), lines[::-1]


def _frame(waiting: object) -> FrameType | None:
    for name in ("cr_frame", "gi_frame", "ag_frame"):
        frame = getattr(waiting, name, None)
        if isinstance(frame, FrameType):
            return frame
    return None


def _awaited(waiting: object) -> object | None:
    for name in ("cr_await", "gi_yieldfrom", "ag_await"):
        inner: object | None = getattr(waiting, name, None)
        if inner is not None:
            return inner
    return None
