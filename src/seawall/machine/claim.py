"""What only one ``seawall up`` can have: its data folder, and the two addresses on which it listens."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Sequence

from seawall.kernel.error import Misconfigured
from seawall.kernel.log import fields, logger
from seawall.machine import check
from seawall.machine.folder import Busy, Folder, Lock
from seawall.settings import Program, host_port

log = logger("machine")

OWN_PREFIX = "worker."
"""With it begins the name of a worker process of a queue's own."""

ROLES = ("collector", "router", "worker", "console")
"""In the order in which an event passes them, which is the order of stopping."""

LEAVE_S = 20.0
"""How long the roles of an `up` that was killed may take to leave: their event loops' own guard ends them in 15 s."""

BACKLOG = 1024


class Claim:
    """What only one `up` can have: the folder and the sockets. ``release`` gives all back."""

    def __init__(self, folder: Folder, program: Program) -> None:
        self.folder = folder
        self._program = program
        self._lock = Lock(folder.path / "lock")
        self.listen: socket.socket | None = None
        self.admin: socket.socket | None = None

    def take(self) -> list[str]:
        """Prepare the folder and take it and the ports; a warning when few files may be open.

        Raises:
            Misconfigured: The folder or a port is in use, or the folder can't be used.
        """
        check.refuse_platform()
        self.folder.prepare()
        self._lock.acquire()
        with contextlib.suppress(FileNotFoundError):
            self.folder.admin_file.unlink()
        check.forbid_cores()
        few = check.raise_open_files()
        own = [file.stem for file in self.folder.run.glob(f"{OWN_PREFIX}*.lock")]
        await_leaving(self.folder, (*ROLES, *own))
        for name in own:  # one that was killed leaves a socket, and is nobody's to miss any more
            self.folder.socket(name).unlink(missing_ok=True)
        self.listen = bound("listen", self._program.listen)
        self.admin = bound("admin", self._program.admin)
        return [few] if few else []

    def note(self) -> None:
        """Say in the lock's file whose it is. Raises OSError."""
        self._lock.note()

    def close_sockets(self) -> None:
        """Our copies only: the roles that serve them close their own."""
        for one in (self.listen, self.admin):
            if one is not None:
                one.close()

    def release(self) -> None:
        self.close_sockets()
        self._lock.release()


def await_leaving(folder: Folder, roles: Sequence[str], *, timeout_s: float = LEAVE_S) -> None:
    """Wait until no role of an earlier `up` is left; end one that doesn't leave, when it is proven to be ours.

    Ours are also those that a role forked, and that outlived it: they hold its lock, which names a dead process.

    Raises:
        Busy: One is left that can't be proven ours, or that can't be ended.
    """
    latest = time.monotonic() + timeout_s
    for role in roles:
        lock = Lock(folder.run / f"{role}.lock")
        try:
            lock.acquire(timeout_s=max(0.0, latest - time.monotonic()))
        except Busy as busy:
            pid = lock.holder_pid()
            pids = [pid] if pid is not None else lock.heirs()
            if not pids:
                raise
            log.warning("a role of an earlier start doesn't leave; ending it", extra=fields(child=role, pids=pids))
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            try:
                lock.acquire(timeout_s=5.0)
            except Busy:
                raise busy from None
        lock.release()


def bound(name: str, address: str) -> socket.socket:
    """A listening socket, to be inherited.

    Raises:
        Misconfigured: The address is in use, isn't ours, or isn't allowed.
    """
    parsed = host_port(address)
    assert parsed is not None, "settings.py refuses other addresses"
    host, port = parsed
    try:
        family, _, _, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        server = socket.socket(family, socket.SOCK_STREAM)
        try:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            server.bind(where)
            server.listen(BACKLOG)
        except OSError:
            server.close()
            raise
    except OSError as error:
        cure = f"stop what listens there, or choose another --{name} (port 0 picks a free one)"
        raise Misconfigured([f"--{name} {address}: {error.strerror or error}; {cure}"]) from error
    server.setblocking(False)
    return server


def url_of(server: socket.socket, *, tls: bool = False) -> str:
    """``http://HOST:PORT`` (or ``https://``) at which a client on this machine reaches it."""
    scheme = "https" if tls else "http"
    host, port = server.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - recognised, not bound
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
