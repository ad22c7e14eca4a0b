"""The data folder: what lies where, which format it has, and which process owns it.

::

    DIR/  FORMAT            one line, "seawall N": refused when N is newer than this program
          key               32 random bytes in hex, 0600: seals the secrets of sources
          lock              held by `seawall up` (flock; the file says whose)
          admin.token       0600: the right to use the admin API
          run/admin.json    0600: where the running platform is; gone when it isn't running
          run/settings.json 0600: the settings that it runs with, also after it stopped
          run/stopper       who asked it to stop, while it does
          run/ROLE.lock     held by each role's process
          run/ROLE.sock     each role's health
          journal/NAME/     one log per collector
          spool/NAME/       its log while the journal is Kafka; NAME.parked: what Kafka refused
          snapshot          what the collector knows of sources, sealed with the key
          flags/ROLE        what a role knows of flags (machine/known.py)
          changes/ROLE      what was changed and isn't in the store yet (machine/diary.py)
          postgres/         the embedded PostgreSQL

A lock is the kernel's (flock), so it can't outlive its process; what the file says is only for messages and for ending
a process that is proven to be ours: it still holds the lock, and its start time is the one written there.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from seawall.guard import fork
from seawall.kernel.error import Misconfigured
from seawall.kernel.log import fields, logger
from seawall.kernel.seam.filesystem import Filesystem

log = logger("machine")

FORMAT = 1
"""Of the folder's layout. Raised when an older Seawall could no longer read what this one writes."""

RESTORE_KEY = "restore it from a backup, where it is the file `key` (without one: docs/cli.md, A lost key)"

LOCK_POLL_S = 0.05
COPY_BYTES = 1024 * 1024


class Busy(Misconfigured):
    """Somebody else holds a lock: ``holder`` says who, as far as the file tells."""

    def __init__(self, path: Path, holder: dict[str, object]) -> None:
        self.path = path
        self.holder = holder
        who = f"process {holder['pid']}" if "pid" in holder else "another process"
        super().__init__([f"{path.parent}: in use by {who} (it holds {path.name}); stop it, or choose another --data"])


class Folder:
    """One data folder. Building it touches nothing; ``prepare`` makes what is missing."""

    def __init__(self, path: Path, filesystem: Filesystem) -> None:
        self.path = path.absolute()
        self._filesystem = filesystem
        self.run = self.path / "run"
        self.journals = self.path / "journal"
        self.spools = self.path / "spool"
        self.snapshot = self.path / "snapshot"
        self.flags = self.path / "flags"
        self.changes = self.path / "changes"
        self.postgres = self.path / "postgres"
        self.key_file = self.path / "key"
        self.token_file = self.path / "admin.token"
        self.admin_file = self.run / "admin.json"
        self.resolved_file = self.run / "settings.json"
        self.stopper_file = self.run / "stopper"
        self.settings_file = self.path / "seawall.toml"

    def journal(self, collector: str) -> Path:
        """The folder of one collector's log."""
        return self.journals / collector

    def spool(self, collector: str) -> Path:
        """The folder of one collector's log while its journal is Kafka."""
        return self.spools / collector

    def socket(self, role: str) -> Path:
        """Where a role serves its health."""
        return self.run / f"{role}.sock"

    def synced_socket(self, collector: str) -> Path:
        """Where a journal publishes its synced end."""
        return self.run / f"journal-{collector}.sock"

    def published(self, log: Path) -> Path:
        """Where one of this folder's logs publishes its synced end, a spooled one too."""
        return self.synced_socket(f"spool-{log.name}" if log.parent == self.spools else log.name)

    def prepare(self) -> None:
        """Make the folder, its key and its token where they are missing; safe beside other processes doing the same.

        Raises:
            Misconfigured: The folder is of a newer format, isn't ours, or can't be written; its key is gone or damaged.
                Nothing was changed.

        Durability: key and format are on stable storage before return, for all that is sealed with the key would be
        lost with it.
        """
        try:
            self.make()
            self._check_format()
            for part in (self.run, self.journals, self.spools):
                part.mkdir(mode=0o700, exist_ok=True)
            if not self.key_file.exists():
                self._refuse_lost_key()
                self._keep(self.key_file, secrets.token_hex(32) + "\n")
            if not self.token_file.exists():
                self._keep(self.token_file, secrets.token_urlsafe(32) + "\n")
            self.key()
            self.token()
        except OSError as error:
            raise Misconfigured([f"--data {self.path}: {error.strerror or error} ({error.filename})"]) from error

    def make(self) -> None:
        """Make the folder itself; harmless when there is one. Raises OSError."""
        # Root's PostgreSQL runs as another user, who must get through to its own folder inside. All else in here is
        # closed to him by its own mode.
        self.path.mkdir(mode=0o711 if os.geteuid() == 0 else 0o700, parents=True, exist_ok=True)

    def key(self) -> bytes:
        """The 32 bytes that seal secrets.

        Raises:
            Misconfigured: There is no key, it is damaged, or others may read it.
        """
        text = self._private(self.key_file)
        if re.fullmatch(r"[0-9a-fA-F]{64}", text) is None:
            raise Misconfigured([f"{self.key_file}: is damaged: 64 hex digits should be in it; {RESTORE_KEY}"])
        return bytes.fromhex(text)

    def token(self) -> str:
        """The admin API's token. Raises Misconfigured like ``key``."""
        text = self._private(self.token_file)
        if not text:
            # It would let in whoever gives none.
            raise Misconfigured([f"{self.token_file}: is empty; remove it, and the next start makes a new token"])
        return text

    def write_admin(self, values: dict[str, object]) -> None:
        """Say where the platform is, in one piece: a reader sees the old file or the new one."""
        replace_private(self.admin_file, json.dumps(values) + "\n")

    def _check_format(self) -> None:
        file = self.path / "FORMAT"
        try:
            words = file.read_text("utf-8", "replace").split()
        except FileNotFoundError:
            if self.postgres.exists() or self.journals.exists() or self.key_file.exists():
                raise Misconfigured(
                    [f"{self.path}: holds data but no FORMAT file; restore it (one line: seawall {FORMAT})"]
                ) from None
            self._keep(file, f"seawall {FORMAT}\n")
            return
        if len(words) != 2 or words[0] != "seawall" or not words[1].isdigit():
            raise Misconfigured([f"{file}: is not a Seawall format file; is --data right?"])
        if int(words[1]) > FORMAT:
            raise Misconfigured(
                [f"{self.path}: has format {words[1]}, this Seawall knows up to {FORMAT}; use the newer Seawall"]
            )

    def _refuse_lost_key(self) -> None:
        """A new key opens nothing of what the lost one sealed: it would look like a start, and close every source."""
        data = [self.snapshot, self.path / "postgres.where", self.postgres, *self.journals.iterdir()]
        if any(path.exists() for path in [*data, *self.spools.iterdir()]):
            raise Misconfigured([f"{self.key_file}: is gone, and there is data that it sealed; {RESTORE_KEY}"])

    def _keep(self, path: Path, text: str) -> None:
        """Create a private file durably, unless another process was first."""
        draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        file = self._filesystem.create(draft)
        try:
            file.write_at(0, text.encode())
            file.sync_data()
        finally:
            file.close()
        # A link fails when the name exists: of two processes that start at once, one key wins and both use it.
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
        self._filesystem.remove(draft)
        self._filesystem.sync_folder(self.path)

    @staticmethod
    def _private(path: Path) -> str:
        try:
            status = path.stat()
            text = path.read_text("ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise Misconfigured([f"{path}: can't be read: {error}"]) from error
        if status.st_mode & 0o077:
            raise Misconfigured([f"{path}: others may read it; run: chmod 600 {path}"])
        return text


def replace_private(path: Path, text: str) -> None:
    """Replace a file of mode 0600 in one piece. Not durable: it is written again at each start. One that says the same
    already stays, which needs no room on a full disk.

    Raises:
        OSError: It can't be written, and names it; what was there stays.
    """
    if _says(path, text):
        return
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with _named(path):
        try:
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(text)
            draft.replace(path)
        except OSError:
            draft.unlink(missing_ok=True)  # each attempt of another process would leave one more on a full disk
            raise


def _says(path: Path, text: str) -> bool:
    try:
        return stat.S_IMODE(path.stat().st_mode) == 0o600 and path.read_bytes() == text.encode()
    except OSError:
        return False


def create_private(path: Path | str) -> IO[bytes]:
    """A new file of mode 0600 to write, which is never wider open, not even for the moment before a chmod.

    Raises:
        OSError: It exists, or can't be made.
    """
    return open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb")


def copy_private(source: Path | str, target: Path | str) -> None:
    """Copy a file's bytes into a new one of mode 0600, whatever the mode of the first. Raises OSError."""
    with open(source, "rb") as read, create_private(target) as write:
        shutil.copyfileobj(read, write, COPY_BYTES)


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """A full disk is met in a write, which knows no name: say whose it was."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def start_time(pid: int) -> str:
    """When a process began, in a form that a later process with the same number can't have; "" when it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("ascii", "replace")
    except OSError:
        return ""
    # Field 22, counted after the command's closing parenthesis, since the command may hold spaces.
    return stat.rpartition(")")[2].split()[19]


class Lock:
    """An exclusive lock on a file, held by this process until ``release`` or its end, however that comes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    def acquire(self, *, timeout_s: float = 0.0) -> None:
        """Take it, waiting at most ``timeout_s``. Blocks the thread: used only before a process's loops start.

        Raises:
            Busy: Another process holds it.
        """
        latest = time.monotonic() + timeout_s
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= latest:
                    os.close(descriptor)
                    raise Busy(self.path, self._known_holder()) from None
                time.sleep(LOCK_POLL_S)
        self._descriptor = descriptor
        fork.keep(descriptor)
        try:
            self.note()
        except OSError as error:
            log.warning("a lock can't say whose it is", extra=fields(file=str(self.path), cause=error.strerror))

    def note(self) -> None:
        """Say in the file whose it is. The lock holds without: a full disk must not keep a process from starting.

        Raises:
            OSError: It can't be written, and names it.
        """
        assert self._descriptor is not None, "only its holder says so"
        text = json.dumps({"pid": os.getpid(), "start": start_time(os.getpid())}).encode()
        with _named(self.path):
            # Over what is there, and cut after: that needs no room where there was a file before.
            size = os.fstat(self._descriptor).st_size
            os.pwrite(self._descriptor, text.ljust(size), 0)
            os.ftruncate(self._descriptor, len(text))

    def release(self) -> None:
        """Let go. Harmless when not held."""
        if self._descriptor is not None:
            fork.let(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = None

    def held(self) -> bool:
        """Whether another process holds it now."""
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        else:
            return False
        finally:
            os.close(descriptor)

    def holder(self) -> dict[str, object]:
        """What the file says of its holder; {} when it says nothing readable."""
        try:
            found = json.loads(self.path.read_text("ascii"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def holder_pid(self) -> int | None:
        """The holder's pid, only when it is proven: the lock is held and that process began when the file says.

        Where the system doesn't tell start times (macOS), the held lock alone is the proof.
        """
        if not self.held():
            return None
        holder = self.holder()
        pid = holder.get("pid")
        if not isinstance(pid, int) or pid <= 1 or start_time(pid) != holder.get("start"):
            return None
        return pid

    def heirs(self) -> list[int]:
        """Who holds the lock although the holder that the file names is dead: processes that it forked, and that
        inherited it. Linux only, and only those of our own user; [] when the named holder lives, or none is named."""
        named = self.holder()
        pid = named.get("pid")
        if not isinstance(pid, int) or start_time(pid) == named.get("start"):
            return []
        return _lockers(self.path)

    def _known_holder(self) -> dict[str, object]:
        heirs = self.heirs()
        return {"pid": ", ".join(map(str, heirs))} if heirs else self.holder()


def _lockers(path: Path) -> list[int]:
    """Processes with an open file on ``path`` that carries a flock. /proc/locks names only who took it."""
    found = set()
    with contextlib.suppress(OSError):
        wanted = path.stat()
        for link in Path("/proc").glob("[0-9]*/fd/*"):
            with contextlib.suppress(OSError):  # it ended, or isn't ours to look at
                if not os.path.samestat(link.stat(), wanted):
                    continue
                info = link.parent.parent / "fdinfo" / link.name
                if "FLOCK" in info.read_text("ascii", "replace"):
                    found.add(int(link.parts[2]))
    return sorted(found - {os.getpid()})
