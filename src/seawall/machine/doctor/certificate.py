"""Checks of certificates: that they can be used, and for how long."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from seawall.machine.doctor.finding import Finding, Severity

DAY_S = 86_400.0
SOON_DAYS = 30
VERY_SOON_DAYS = 7
FILE_BYTES_MAX = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """One that we show to others, as its file says. ``trouble``: why it can't be used; then the times mean nothing."""

    what: str  # whose it is: the setting that names it
    path: str
    begins_s: float = 0.0  # wall clock
    ends_s: float = 0.0
    trouble: str = ""


def read(what: str, path: str, key: str) -> Certificate:
    """A certificate with its key. Reads; what goes wrong is in ``trouble``."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(path, key or None, password=lambda: "")
        with Path(path).open("rb") as file:
            found = x509.load_pem_x509_certificate(file.read(FILE_BYTES_MAX))
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        return Certificate(what=what, path=path, trouble=str(error))
    begins, ends = found.not_valid_before_utc, found.not_valid_after_utc
    return Certificate(what=what, path=path, begins_s=begins.timestamp(), ends_s=ends.timestamp())


def certificate(it: Certificate, *, now_s: float, renewal: str) -> Iterator[Finding]:
    """Whether it serves, and will for a while.

    Args:
        renewal: What it takes to put a new one there.
    """
    left_days = (it.ends_s - now_s) / DAY_S
    if it.trouble:
        what, severity = f"can't be used: {it.trouble}", Severity.CRITICAL
    elif now_s < it.begins_s:
        what, severity = f"isn't valid for another {(it.begins_s - now_s) / DAY_S:.1f} days", Severity.CRITICAL
    elif left_days <= 0:
        what, severity = f"expired {-left_days:.1f} days ago", Severity.CRITICAL
    elif left_days <= SOON_DAYS:
        what = f"expires in {left_days:.1f} days"
        severity = Severity.CRITICAL if left_days <= VERY_SOON_DAYS else Severity.WARNING
    else:
        return
    yield Finding(
        check="certificate", severity=severity, what=f"{it.what} = {it.path} {what}",
        why="whoever checks it refuses the connection: no sender comes through, and none of them tells us",
        cure=renewal,
    )  # fmt: skip
