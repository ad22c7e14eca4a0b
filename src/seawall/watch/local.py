"""Unix sockets by path: bound without a moment in which strangers could connect, and without taking a live one away.

A socket's path may have at most about 100 bytes, and a data folder's path may be longer than that. On Linux the folder
is then named through an open descriptor of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

PATH_BYTES_MAX: Final = 100
"""sun_path holds 108 bytes on Linux and 104 on macOS."""

CONNECT_S: Final = 0.5
BACKLOG: Final = 64


def listen_local(path: Path) -> socket.socket:
    """A listening socket at ``path``, mode 0600, not blocking.

    A leftover of a process that is gone is replaced. The socket is bound under another name, restricted, and only then
    renamed: whoever finds the name finds a server that is its owner's alone.

    Raises:
        OSError: EADDRINUSE when a live process listens there, or when ``path`` is no socket: neither is ours to remove.
    """
    _refuse_taken(path)
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with contextlib.suppress(FileNotFoundError):
            fresh.unlink()
        with _short(fresh) as name:
            server.bind(name)
        fresh.chmod(0o600)
        server.listen(BACKLOG)
        server.setblocking(False)
        fresh.rename(path)
    except OSError:
        server.close()
        with contextlib.suppress(OSError):
            fresh.unlink()
        raise
    return server


def remove_local(path: Path, identity: tuple[int, int]) -> None:
    """Remove our socket's name, unless another process' socket stands there by now."""
    with contextlib.suppress(OSError):
        if identity_of(path) == identity:
            path.unlink()


def identity_of(path: Path) -> tuple[int, int]:
    """What tells one file from another under the same name."""
    found = path.lstat()
    return found.st_dev, found.st_ino


async def open_local(path: Path) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to a unix socket. The caller sets the deadline.

    Raises:
        OSError: Nobody listens there.
    """
    with _short(path) as name:
        return await asyncio.open_unix_connection(name)


def _refuse_taken(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise OSError(errno.EADDRINUSE, "a file that isn't a socket is in the way", str(path))
    probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    probe.settimeout(CONNECT_S)
    try:
        with _short(path) as name:
            probe.connect(name)
    except (ConnectionRefusedError, FileNotFoundError):
        return
    except OSError as error:
        # Also a full backlog of a process that hangs: it is alive, so its name isn't ours to take.
        raise OSError(errno.EADDRINUSE, f"can't tell whether somebody listens there ({error})", str(path)) from error
    else:
        raise OSError(errno.EADDRINUSE, "another process listens there", str(path))
    finally:
        probe.close()


@contextlib.contextmanager
def _short(path: Path) -> Iterator[str]:
    """A name of ``path`` that fits into a socket address, valid while inside."""
    name = str(path)
    if len(os.fsencode(name)) <= PATH_BYTES_MAX:
        yield name
        return
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
