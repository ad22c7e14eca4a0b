"""``seawall backup`` and ``seawall restore``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path

import click

from seawall.cli.place import folder_of, reader
from seawall.cli.say import FAILED, NOT_FOUND, Failed, data_option, json_option, say, say_json
from seawall.journal.filesystem import LocalFilesystem
from seawall.machine.backup import Manifest, serving
from seawall.machine.backup import backup as backed_up
from seawall.machine.folder import Folder, Lock
from seawall.machine.restore import restore as restored
from seawall.settings import Settings, load_resolved
from seawall.store import binary, embedded
from seawall.store.embedded import EmbeddedPostgres


def _say(sentence: str) -> None:
    say(sentence, err=True)


@click.command(
    epilog="""\b
Examples:
  seawall backup /mnt/backup/2026-11-22
  seawall backup /mnt/backup/today --data /srv/seawall --json

\b
In profile cluster, events that Kafka has are Kafka's: TO holds those that it doesn't have yet.
The backup holds the key that opens the secrets of sources: keep it as safe as the data folder.
Exit codes: 0 done, 1 failed (what is in TO is no backup), 2 misused, 3 there is no such data folder."""
)
@click.argument("to", type=click.Path(path_type=Path))
@data_option
@click.option("--config", metavar="FILE", help="Settings file. [default: DIR/seawall.toml]")
@json_option
def backup(to: Path, data: str | None, config: str | None, as_json: bool) -> None:
    """Write store, journal, spool and key into the new folder TO. The platform may run, and goes on undisturbed."""
    folder = folder_of(data)
    if not folder.key_file.exists():
        raise Failed(NOT_FOUND, f"{folder.path} is no data folder")
    settings = reader(folder, config, {})()
    manifest = asyncio.run(_backup(folder, to, settings))
    if as_json:
        say_json({"to": str(to), **asdict(manifest)})
    else:
        say(f"backed up into {to}")


async def _backup(folder: Folder, to: Path, settings: Settings) -> Manifest:
    programs = await asyncio.to_thread(binary.find, settings.of("pg", embedded.Settings).bin)
    async with _dsn(folder, settings) as dsn:
        return await backed_up(folder, to, dsn=dsn, programs=programs, filesystem=LocalFilesystem(), progress=_say)


@asynccontextmanager
async def _dsn(folder: Folder, settings: Settings) -> AsyncIterator[str]:
    """The store's owner: the running one's, your own one's, or the embedded one, started for as long as it takes."""
    lock = Lock(folder.path / "lock")
    if lock.held():
        yield load_resolved(folder.resolved_file).program.dsn
    elif settings.program.dsn:
        yield settings.program.dsn
    else:
        lock.acquire()
        try:
            async with serving(_embedded(folder, settings)) as dsn:
                yield dsn
        finally:
            lock.release()


def _embedded(folder: Folder, settings: Settings) -> EmbeddedPostgres:
    return EmbeddedPostgres(settings.of("pg", embedded.Settings), folder.path, LocalFilesystem())


@click.command(
    epilog="""\b
Examples:
  seawall restore /mnt/backup/2026-11-22 --data /srv/seawall-new
  SEAWALL_DSN_FILE=dsn.txt seawall restore /mnt/backup/today --data /srv/seawall-new    into your own PostgreSQL

\b
Then start it: seawall up --data DIR. What the journal holds beyond the store is routed again,
and what was spooled goes to Kafka; copies collapse.
Exit codes: 0 done, 1 failed, 2 misused (the folder is in use, or has a store already)."""
)
@click.argument("source", metavar="FROM", type=click.Path(exists=True, file_okay=False, path_type=Path))
@data_option
@click.option("--config", metavar="FILE", help="Settings file. [default: DIR/seawall.toml]")
@json_option
def restore(source: Path, data: str | None, config: str | None, as_json: bool) -> None:
    """Make a data folder from the backup FROM."""
    folder = folder_of(data)
    settings = reader(folder, config, {})()
    try:
        names = asyncio.run(
            restored(
                source, folder, _embedded(folder, settings),
                filesystem=LocalFilesystem(), dsn=settings.program.dsn, progress=_say,
            )
        )  # fmt: skip
    except OSError as error:
        raise Failed(FAILED, f"{error.strerror or error} ({error.filename})") from error
    if as_json:
        say_json({"data": str(folder.path), "journals": names})
    else:
        say(f"restored into {folder.path}; start it: seawall up --data {folder.path}")
