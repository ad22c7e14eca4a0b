"""What a process says, against whoever reads it: a reader that pauses costs lines, counted, and no time."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from seawall.guard import outlet
from seawall.guard.outlet import Handler, Outlet
from seawall.kernel.log import JsonFormatter
from seawall.kernel.metric import Metrics
from stall import Stopwatch


class Pipe:
    """A pipe whose reader is us."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()

    def read(self, until: bytes, timeout_s: float = 10.0) -> bytes:
        """What comes, up to ``until``."""
        found, latest = b"", time.monotonic() + timeout_s
        os.set_blocking(self.reader, False)
        while until not in found:
            assert time.monotonic() < latest, found[-300:]
            try:
                found += os.read(self.reader, 65536)
            except BlockingIOError:
                threading.Event().wait(0.005)
        return found

    def fill(self) -> int:
        """As full as a reader leaves it that doesn't read; how many bytes that were."""
        filler = os.open(f"/proc/self/fd/{self.writer}", os.O_WRONLY | os.O_NONBLOCK)
        size = 0
        for piece in (4096, 1):
            try:
                while True:
                    size += os.write(filler, b"." * piece)
            except BlockingIOError:
                pass
        os.close(filler)
        return size


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    made = Pipe()
    yield made
    os.close(made.reader)
    os.close(made.writer)


def test_lines_come_whole_and_in_their_order(pipe: Pipe) -> None:
    out = Outlet(pipe.writer)
    lines = [b"%d %s\n" % (i, b"x" * (i % 7000)) for i in range(300)]
    for line in lines:
        out.put(line)
    assert pipe.read(lines[-1]) == b"".join(lines)
    assert out.flush() and out.dropped.value == 0


def test_a_reader_that_pauses_holds_nobody_and_hears_how_much_it_missed(pipe: Pipe) -> None:
    filled = pipe.fill()
    out = Outlet(pipe.writer, lines_max=10)
    metrics = Metrics()
    out.count(metrics)
    out.put(b"line 0\n")
    while not out.stuck:  # it is in the writer's hand
        out.flush(0.01)
    watch = Stopwatch()
    for i in range(1, 1000):
        out.put(b"line %d\n" % i)
    assert watch.s < 1.0
    dropped = int(metrics.counter("seawall_log_dropped_total", "").value)
    assert dropped == 1000 - 11
    said = pipe.read(b"lines dropped")[filled:].decode().splitlines()
    assert said[:-1] == [f"line {i}" for i in range(1000 - dropped)], "the newest are dropped"
    assert said[-1].startswith(f"{dropped} lines dropped")
    assert out.flush()
    out.put(b"after\n")
    assert pipe.read(b"after\n").endswith(b"after\n")


def test_the_queue_is_bounded_in_bytes_too(pipe: Pipe) -> None:
    pipe.fill()
    out = Outlet(pipe.writer, bytes_max=10_000)
    out.put(b"in the writer's hand\n")
    while not out.stuck:
        out.flush(0.01)
    for _ in range(100):
        out.put(b"x" * 999 + b"\n")
    assert out.dropped.value == 90


def test_an_end_waits_for_the_last_lines_and_not_for_a_reader_that_is_away(pipe: Pipe) -> None:
    out = Outlet(pipe.writer)
    pipe.fill()
    out.put(b"last\n")
    watch = Stopwatch()
    assert not out.flush(0.1)
    assert watch.s < 1.0


def test_a_reader_that_is_gone_costs_its_lines_only(pipe: Pipe) -> None:
    out = Outlet(pipe.writer)
    reader, pipe.reader = pipe.reader, os.dup(pipe.writer)
    os.close(reader)
    out.put(b"one\ntwo\n")
    assert out.flush() and out.dropped.value == 2


def test_the_shared_open_file_stays_blocking_and_one_that_is_not_is_written_too(pipe: Pipe) -> None:
    out = Outlet(pipe.writer)
    out.put(b"a\n")
    assert out.flush()
    assert not fcntl.fcntl(pipe.writer, fcntl.F_GETFL) & os.O_NONBLOCK
    os.set_blocking(pipe.writer, False)
    pipe.fill()
    out.put(b"b\n")
    assert pipe.read(b"b\n").endswith(b".b\n")
    assert out.dropped.value == 0


def test_a_critical_line_is_out_before_the_process_ends(pipe: Pipe) -> None:
    handler = Handler(Outlet(pipe.writer))
    handler.setFormatter(JsonFormatter("worker"))
    os.set_blocking(pipe.reader, False)
    for _ in range(50):
        handler.emit(logging.LogRecord("seawall.x", logging.CRITICAL, "f", 1, "the end", None, None))
        assert json.loads(os.read(pipe.reader, 65536))["message"] == "the end"


def test_critical_lines_wait_once_for_a_reader_that_is_away(pipe: Pipe) -> None:
    pipe.fill()
    handler = Handler(Outlet(pipe.writer))
    watch = Stopwatch()
    for _ in range(50):
        handler.emit(logging.LogRecord("seawall.x", logging.CRITICAL, "f", 1, "the end", None, None))
    assert watch.s < 50 * outlet.CRITICAL_FLUSH_S / 4


def test_what_is_said_of_dropped_lines_is_a_log_line(pipe: Pipe) -> None:
    handler = Handler(Outlet(pipe.writer))
    handler.setFormatter(JsonFormatter("worker"))
    said = json.loads(handler.notice(7))
    assert (said["level"], said["dropped"], said["message"]) == ("warning", 7, "7 lines dropped: nobody read the log")


PRELUDE = """
import logging, os, sys, threading
from seawall.guard import outlet
from seawall.kernel.log import logger
"""


def ran(code: str, *, reader: bool = True) -> tuple[int, bytes]:
    """Exit status and standard error of a process; with ``reader`` False its pipe is full before it begins."""
    made = Pipe()
    filled = 0 if reader else made.fill()
    process = subprocess.Popen(
        [sys.executable, "-c", PRELUDE + textwrap.dedent(code)], stderr=made.writer, stdout=made.writer
    )
    os.close(made.writer)
    try:
        if not reader:
            process.wait(timeout=20)
        with os.fdopen(made.reader, "rb") as pipe:
            said = pipe.read()[filled:]
        return process.wait(timeout=20), said
    finally:
        process.kill()


def test_a_process_that_ends_at_once_has_said_its_last_words() -> None:
    status, said = ran("""
        with outlet.opened("worker", level="info"):
            logger("x").error("an error")
            print("a print")
            outlet.flush()
            os._exit(5)
    """)
    assert status == 5 and b"an error" in said and b"a print" in said


def test_nobody_reading_holds_neither_prints_nor_warnings_nor_the_end() -> None:
    status, _ = ran(
        """
        with outlet.opened("worker", level="info"):
            for i in range(30_000):
                logger("x").info("line %d", i)
            print("x" * 200_000)
            print("x" * 200_000, file=sys.stderr)
            logging.getLogger("other").warning("y" * 200_000)
            sys.exit(6)
        """,
        reader=False,
    )
    assert status == 6


def test_a_forked_process_writes_by_itself_and_says_nothing_twice() -> None:
    status, said = ran("""
        with outlet.opened("worker", level="info"):
            for i in range(200):
                logger("x").info("before %d", i)
            busy = threading.Thread(target=lambda: [logger("x").info("beside") for _ in range(2000)])
            busy.start()
            for i in range(20):
                if not (child := os.fork()):
                    logger("x").info("child %d", i)
                    print("printed", i, flush=True)
                    os._exit(0)
                os.waitpid(child, 0)
            busy.join()
    """)
    assert status == 0
    lines = said.decode().splitlines()
    for i in range(200):
        assert sum(f'"before {i}"' in line for line in lines) == 1
    for i in range(20):
        assert sum(f'"child {i}"' in line for line in lines) == 1
        assert sum(line == f"printed {i}" for line in lines) == 1


def test_a_blocked_event_loop_ends_its_process_though_nobody_reads_its_stacks() -> None:
    status, _ = ran(
        """
        import faulthandler, time
        faulthandler.dump_traceback_later(0.2, exit=True, file=outlet.unblocked())
        time.sleep(60)
        """,
        reader=False,
    )
    assert status == 1


def test_stacks_in_a_file_stay_whole_between_other_lines(tmp_path: Path) -> None:
    """``2> log``: without O_APPEND, whoever writes next does so where the last one of the same opening ended."""
    said = tmp_path / "log"
    with said.open("wb") as file:
        code = PRELUDE + (
            "import faulthandler; os.write(2, b'first\\n'); faulthandler.dump_traceback(outlet.unblocked())\n"
            "os.write(2, b'last\\n')"
        )
        subprocess.run([sys.executable, "-c", code], stderr=file, check=True, timeout=20)
    first, *stack, last = said.read_text().splitlines()
    assert (first, last) == ("first", "last")
    assert "most recent call first" in stack[0] and "File" in stack[-1]


def test_sigpipe_and_stop_signals_need_no_reader() -> None:
    status, _ = ran(
        """
        import signal
        with outlet.opened("worker", level="info"):
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
            for i in range(30_000):
                logger("x").info("line %d", i)
            os.kill(os.getpid(), signal.SIGTERM)
            signal.pause()
        """,
        reader=False,
    )
    assert status == 7
