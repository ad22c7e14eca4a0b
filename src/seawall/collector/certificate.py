"""The certificate of the listen address: loaded at the start, and again when its files change or SIGHUP says so.

Open connections keep what they began with; each new handshake takes the newest that could be loaded. A pair of files
that can't be used changes nothing but an alert.
"""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import NamedTuple

from cryptography import x509

from seawall.guard import Heart
from seawall.kernel.alert import Alerts
from seawall.kernel.clock import Clock
from seawall.kernel.error import Misconfigured
from seawall.kernel.log import fields, logger
from seawall.kernel.metric import Metrics

log = logger("collector")

LOOK_S = 1.0
"""How often the files are looked at. A change is loaded when they have stood still for as long: a certificate is
replaced before its key, or after it."""

DISK_S = 2.0
"""How long reading them may take; below the supervisor's stall limit."""

EXPIRES_SOON_S = 7 * 86_400.0
UNUSABLE, EXPIRES = "tls-certificate-unusable", "tls-certificate-expires"
_Stamp = tuple[tuple[int, int, int] | None, ...]


class _Look(NamedTuple):
    """What one look at the files came to."""

    stamp: _Stamp
    found: tuple[ssl.SSLContext, float] | None = None  # None: they weren't read, or of no use
    trouble: str = ""


class Certificate:
    """``context`` is what the listener hands to each handshake; it stays the same object.

    Args:
        certificate: PEM, the server's own first, then those that lead to its authority.
        key: PEM, without a pass phrase: nobody is there to type it.
    """

    def __init__(self, certificate: Path, key: Path, *, alerts: Alerts, clock: Clock, metrics: Metrics) -> None:
        self._files = (certificate, key)
        self._alerts = alerts
        self._clock = clock
        self._expires_at_s = 0.0  # wall clock
        self._loaded: _Stamp = ()
        self._due = False
        gauge = metrics.gauge("seawall_tls_certificate_expiry_seconds", "Until the certificate in use expires.")
        gauge.read = self.left_s
        self._reloads = metrics.counter("seawall_tls_certificate_loads_total", "Times that a certificate was loaded.")

    def open(self) -> None:
        """Load it for the first time. Blocking, for the start.

        Raises:
            Misconfigured: It can't be used.
        """
        self._loaded = self._stamp()
        try:
            self.context, self._expires_at_s = self._read()
        except (OSError, ValueError) as error:
            raise Misconfigured([self._said(error)]) from error
        # Called in each handshake, with or without a name: so a new context serves from the next one on, at once as a
        # whole. Loading into the context in use could leave it with a certificate and another one's key.
        self._current = self.context
        self.context.sni_callback = lambda handshake, name, context: setattr(handshake, "context", self._current)
        self._reloads.value += 1

    def left_s(self) -> float:
        """Seconds until it expires; negative when it has."""
        return self._expires_at_s - self._clock.wall_us() / 1_000_000

    def reload(self) -> None:
        """Load it again at the next look, changed or not."""
        self._due = True

    async def watch(self, heart: Heart) -> None:
        """Load it again whenever its files changed, and tell when it is about to expire."""
        seen, looking = self._loaded, None
        await heart.beat()
        try:
            while True:
                await asyncio.sleep(LOOK_S)
                heart.touch()
                if looking is None:
                    due, self._due = self._due, False
                    looking = asyncio.create_task(asyncio.to_thread(self._look, seen, due=due), name="tls.look")
                # One thread waits for a disk that hangs, however long, and what it read in the end counts.
                if (await asyncio.wait([looking], timeout=DISK_S))[0]:
                    seen = self._take(looking.result())
                    looking = None
                    await heart.beat()
                else:
                    heart.unready(f"the disk takes too long to read {self._files[0]}")
                self._warn()
        finally:
            if looking is not None:
                looking.cancel()

    def _look(self, seen: _Stamp, *, due: bool) -> _Look:
        """Read the files when that is due. Blocking."""
        stamp = self._stamp()
        if not due and (stamp != seen or stamp == self._loaded):
            return _Look(stamp)
        try:
            return _Look(stamp, self._read())
        except (OSError, ValueError) as error:
            return _Look(stamp, trouble=self._said(error))

    def _take(self, look: _Look) -> _Stamp:
        """Use what was read; what the files were then."""
        if look.found is not None:
            self._loaded = look.stamp
            self._current, self._expires_at_s = look.found
            self._reloads.value += 1
            self._alerts.cleared(UNUSABLE)
            said = fields(file=str(self._files[0]), left_s=round(self.left_s()))
            log.info("the certificate was loaded", extra=said)
        elif look.trouble:
            self._loaded = look.stamp
            self._alerts.raised(
                UNUSABLE, look.trouble, unaffected="the certificate that was loaded before stays in use",
                cure="put a certificate and its key there; they are looked at each second",
            )  # fmt: skip
        return look.stamp

    def _warn(self) -> None:
        left_s = self.left_s()
        if left_s > EXPIRES_SOON_S:
            self._alerts.cleared(EXPIRES)
            return
        when = f"expires in {left_s / 86_400:.1f} days" if left_s > 0 else "has expired: senders refuse to connect"
        self._alerts.raised(
            EXPIRES, f"{self._files[0]} {when}", cure="put a new certificate and its key there; no restart is needed"
        )

    def _stamp(self) -> _Stamp:
        """What changes when a file is replaced or written."""
        found: list[tuple[int, int, int] | None] = []
        for file in self._files:
            try:
                status = file.stat()
                found.append((status.st_mtime_ns, status.st_size, status.st_ino))
            except OSError:
                found.append(None)
        return tuple(found)

    def _read(self) -> tuple[ssl.SSLContext, float]:
        """A context with them, and when the certificate expires. Blocking.

        Raises:
            OSError: They can't be read, aren't PEM (ssl.SSLError is one), or don't belong together.
            ValueError: It is no certificate.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
        context.set_alpn_protocols(["http/1.1"])
        certificate, key = self._files
        context.load_cert_chain(certificate, key, password=lambda: "")
        pem = x509.load_pem_x509_certificate(certificate.read_bytes())
        return context, pem.not_valid_after_utc.timestamp()

    def _said(self, error: Exception) -> str:
        certificate, key = self._files
        return f"tls_certificate = '{certificate}', tls_key = '{key}': can't be used: {error}"
