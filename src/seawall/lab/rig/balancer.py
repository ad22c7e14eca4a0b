"""What a load balancer would think of the collector: health checks as one makes them, and whether the host is in.

A check is a real event to a source of its own, since one that asks only whether the process lives says nothing of how
long senders wait: hosts that waited 750 ms for each call were taken out so (incident I4). No workflow is for it, and no
ledger has it.
"""

from __future__ import annotations

import http.client
import secrets
import threading
import time

from seawall.kernel.error import SeawallError
from seawall.lab.platform import Platform, Source

EVERY_S = 1.0
TIMEOUT_S = 0.8
OUT = 3
"""So many checks in a row that failed take the host out."""

IN = 2
"""So many in a row that passed let it in again."""

TYPE = "lab.health"


class Balancer:
    """Checks until ``stop``. It takes no part in the traffic.

    Attributes:
        host_in: Whether the host gets traffic.
        check_s: How long the last check took.
    """

    def __init__(self, platform: Platform, *, every_s: float = EVERY_S) -> None:
        self._platform = platform
        self._every_s = every_s
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lab.balancer", daemon=True)
        self._row = 0  # checks in a row that say otherwise
        self.host_in = True
        self.check_s = 0.0

    def start(self) -> None:
        """Make the source, and begin. Raises as `Platform.own_source`."""
        name = f"lab-balancer-{secrets.token_hex(4)}"
        self._source = self._platform.own_source(name, kind="none", secret="")
        self._thread.start()

    def stop(self) -> None:
        """Harmless when it never began, or has ended."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(TIMEOUT_S * 3)

    def sample(self) -> dict[str, float]:
        return {"balancer.in_ratio": float(self.host_in), "balancer.check_ms": self.check_s * 1000}

    def _run(self) -> None:
        while not self._stopping.wait(max(0.0, self._every_s - self.check_s)):
            began = time.monotonic()
            passed = self._passes(self._source)
            self.check_s = time.monotonic() - began
            self._judge(passed=passed)

    def _judge(self, *, passed: bool) -> None:
        self._row = 0 if passed == self.host_in else self._row + 1
        if self._row >= (OUT if self.host_in else IN):
            self.host_in, self._row = not self.host_in, 0

    def _passes(self, source: Source) -> bool:
        connection: http.client.HTTPConnection | None = None
        try:
            host, port = self._platform.listen(source)
            connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)
            headers = {"content-type": "application/json", "ce-type": TYPE, "webhook-id": secrets.token_hex(8)}
            connection.request("POST", source.path, b"{}", headers)
            return 200 <= connection.getresponse().status < 300
        except (OSError, http.client.HTTPException, SeawallError):
            return False
        finally:
            if connection is not None:
                connection.close()
