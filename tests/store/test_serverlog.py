"""PostgreSQL's lines in our log: what a person should read is at info or above, and its everyday talk isn't."""

from __future__ import annotations

import logging

import pytest

from seawall.store.serverlog import say

LINES = [
    ('2026-11-22 04:54:18.561 GMT [10659] LOG:  skipping missing configuration file "/D/local.conf"', logging.DEBUG),
    ('41 00000 LOG:  listening on Unix socket "/D/.s.PGSQL.5432"', logging.DEBUG),
    ("41 00000 LOG:  database system is ready to accept connections", logging.DEBUG),
    ('42 3D000 FATAL:  database "seawall" does not exist', logging.DEBUG),
    ('42 28000 FATAL:  role "seawall_worker" does not exist', logging.DEBUG),
    ("42 57P03 FATAL:  the database system is starting up", logging.DEBUG),
    ("41 00000 LOG:  server process (PID 9) was terminated by signal 9: Killed", logging.INFO),
    ("41 00000 LOG:  database system was not properly shut down; automatic recovery in progress", logging.INFO),
    ("43 53300 FATAL:  sorry, too many clients already", logging.ERROR),
    ("43 40P01 ERROR:  deadlock detected", logging.WARNING),
    ("41 XX000 PANIC:  could not write to file", logging.CRITICAL),
    ("Segmentation fault", logging.INFO),
]


@pytest.mark.parametrize(("line", "level"), LINES)
def test_each_line_is_as_loud_as_it_matters(line: str, level: int, caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("seawall.postgres")
    logger.addHandler(caplog.handler)
    try:
        with caplog.at_level(logging.DEBUG, "seawall.postgres"):
            say(line)
    finally:
        logger.removeHandler(caplog.handler)
    assert {record.levelno for record in caplog.records} == {level}


def test_what_explains_a_line_is_as_loud_as_the_line() -> None:
    assert say("43 40P01 DETAIL:  Process 1 waits", before=logging.WARNING) == logging.WARNING
    assert say("41 00000 HINT:  nothing to do", before=logging.DEBUG) == logging.DEBUG
