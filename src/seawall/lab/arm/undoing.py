"""Undoes what is armed, whoever asks: the runner, the watchdog or a person."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from seawall.kernel.error import SeawallError
from seawall.kernel.error import said as spelt
from seawall.lab.arm import file
from seawall.lab.arm.file import Armed
from seawall.lab.arm.revert import undo, words

AT_ONCE_MAX = 16


@dataclass(frozen=True, slots=True)
class Undone:
    """What became of one try."""

    armed: Armed
    ok: bool
    said: str
    first: bool = False  # nobody else had undone it before

    @property
    def text(self) -> str:
        what = f"{self.armed.fault}: {words(self.armed.revert)}"
        return f"{what}: {self.said}" if self.ok else f"{what}: NOT undone: {self.said}"


def undo_one(folder: Path, armed: Armed, *, by: str) -> Undone:
    """Undo one, and forget it when it is undone. Never raises for what the world does: it is tried again."""
    try:
        said = undo(armed.revert)
    except Exception as error:  # noqa: BLE001 - whatever one raises, it is tried again, and the others are undone
        why = str(error) if isinstance(error, SeawallError) else spelt(error)
        file.log(folder, "not undone", id=armed.id, fault=armed.fault, by=by, why=why)
        return Undone(armed, False, why)
    first = file.remove(folder, armed.id)
    if first:
        file.log(folder, "undone", id=armed.id, fault=armed.fault, run=armed.run, by=by, said=said)
    return Undone(armed, True, said, first)


def undo_all(
    folder: Path, wanted: Iterable[Armed], *, by: str, told: Callable[[Undone], None] | None = None
) -> list[Undone]:
    """All at once: one that takes its time keeps no other waiting. ``told`` hears of each as it ends."""
    wanted = list(wanted)
    if not wanted:
        return []

    def one(armed: Armed) -> Undone:
        done = undo_one(folder, armed, by=by)
        if told is not None:
            told(done)
        return done

    with ThreadPoolExecutor(min(AT_ONCE_MAX, len(wanted)), thread_name_prefix="undo") as pool:
        return list(pool.map(one, wanted))
