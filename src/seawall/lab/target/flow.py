"""Traffic to sources that are there already: the lab makes nothing in an installation of the user's own."""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from seawall.lab.platform import Platform, Source, address
from seawall.lab.rig.flow import Flow, Stream
from seawall.lab.target.file import Sender
from seawall.lab.traffic import Target


class TargetFlow(Flow):
    """See `Flow`.

    Others may send to the same sources, and earlier runs did: the ledger says so (``shared``), and only events whose
    key begins with a run's own id are that run's.
    """

    shared = True

    def __init__(
        self, platform: Platform, wanted: Sequence[Stream], path: Path, *, seed: int,
        senders: Mapping[str, tuple[Sender, Source]], tls: ssl.SSLContext | None,
    ) -> None:  # fmt: skip
        super().__init__(platform, wanted, path, seed=seed)
        self._senders, self._tls = senders, tls

    def _source(self, stream: Stream) -> tuple[Source, bytes]:
        sender, source = self._senders[stream.kind]
        return source, sender.secret.encode()

    def _target(self, source: Source, secret: bytes) -> Target:
        found = address(source.url)
        host = urlsplit(source.url).netloc
        return Target(address=lambda: found, path=source.path, secret=secret, host=host, tls=self._tls_of(source))

    def _tls_of(self, source: Source) -> ssl.SSLContext | None:
        return (self._tls or ssl.create_default_context()) if source.url.startswith("https:") else None
