"""One run of one experiment: opens the rig, guards what Chaos Toolkit plays on it, reverts, and concludes."""

from __future__ import annotations

import importlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from seawall.kernel.error import SeawallError
from seawall.kernel.error import said as spelt
from seawall.lab import drill, history
from seawall.lab.arm.armoury import Armoury
from seawall.lab.arm.watchdog import LEFTOVER_S
from seawall.lab.expect import STEADY, Seen
from seawall.lab.experiment import Claim, Experiment
from seawall.lab.record import LOG, Drill, Expectation, Fault, Moment, Record, Sample, Status
from seawall.lab.run import judge, preflight, times, toolkit, watch
from seawall.lab.run.faults import Faults
from seawall.lab.run.place import Folder
from seawall.lab.run.sampler import DISK, MEMORY, Sampler
from seawall.lab.run.sentry import Conditions, Sentry
from seawall.lab.run.steady import Steady
from seawall.lab.seam import OpenRig, Order, Rig
from seawall.lab.weak import mark

DISK_FREE_MB_MIN = 512.0
UNSEEN_S = 15.0
"""So long nothing was measured: nobody sees any more what the faults do."""
PLAY_MORE_S = 120.0
"""A method may take so much longer than its faults: pauses, waiting for parts."""
HOLD_S = 0.1
KILLED = "killed"
"""A moment of this kind is a fault that needs no undoing: others replace what was killed."""

Say = Callable[[str], None]

_current: Session | None = None


def current() -> Session | None:
    """The run of this process; None when there is none."""
    return _current


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How one run is made."""

    folder: Folder
    on: bool = True  # with the protections
    seed: int = 0
    fetched: Path
    command: str = ""
    drill: Drill | None = None  # its fault is hidden from people, and stays until they are done
    leftover_s: float = LEFTOVER_S


class Session:
    """See above. ``open``, then ``Handler(session)`` is told of what is played, then ``conclude``, then ``close``.

    Attributes:
        record: What is known; in the run's folder, too.
        sentry: Ends the run; `Sentry.end` from anywhere.
    """

    # Size: the order in which a run is guarded is its job; what is done at each place stands in the modules beside it.

    def __init__(self, experiment: Experiment, options: Options, *, say: Say) -> None:
        began = datetime.now(UTC)
        ours, at, word = experiment.ours, experiment.at, "on" if options.on else "off"
        self.experiment, self.options, self.say = experiment, options, say
        self.record = Record(
            # The folder's name is seen in lists of processes, too.
            id=f"{experiment.name if options.drill is None else drill.NAME}.{word}.{began:%Y%m%dT%H%M%S}",
            name=experiment.name, title=experiment.title,
            incident=ours.incident, protections=word, weak=[] if options.on else list(ours.without),
            seed=options.seed, variant=ours.variant, target=at.name if at is not None else "",
            unseen=list(at.unseen) if at is not None else [], command=options.command,
            began=began.isoformat(timespec="seconds"),
            original=ours.original.told() if ours.original else {},
        )  # fmt: skip
        self.folder = options.folder.run(self.record.id)
        self.record.id = self.folder.name
        self.samples: Sampler | None = None
        self._start = time.monotonic()
        self._played_s: float | None = None
        self._ending = False
        self._kept = False
        self._unwell = ""  # how it goes to what isn't ours, after an abort
        self._stack = ExitStack()
        self._invalid: list[str] = []
        self._broken: list[str] = []
        self._states: list[tuple[float, bool]] = []
        self._looks: list[float] = []  # of the sentry
        self._saving = threading.Lock()
        self._conditions = Conditions(ours.abort)
        self.record.drill = options.drill
        self._desk = drill.Desk(options.folder.path, clock=self.clock) if options.drill is not None else None
        self._steady = Steady(experiment.document)
        self.handler = toolkit.Handler(self)
        self.sentry = Sentry(look=self._look, revert=self._abort, main=threading.get_ident())
        self._rig: Rig | None = None
        self._armoury = Armoury(
            options.folder.armed, run=self.record.id, rig=options.folder.rig, lost=self.sentry.end,
            told=lambda id, by: self._faults.ended(id, by), leftover_s=options.leftover_s,
            record=self.folder,
        )  # fmt: skip
        self._faults = Faults(
            self._armoury, clock=self.clock, changed=self.save, max_s=ours.seconds.max, kept=options.drill is None
        )

    def clock(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self._start

    def seen(self) -> tuple[Sequence[Sample], Sequence[Fault]]:
        """What was measured and broken so far."""
        return (self.samples.samples if self.samples is not None else []), self._faults.faults

    def save(self) -> None:
        """Write the record as it is. A disk that is full keeps nothing from being reverted: it is said, and gone on."""
        with self._saving:
            self.record.faults, self.record.proofs = self._faults.faults, self._faults.proofs
            self.record.seconds = round(self.clock(), 3)
            try:
                self.record.save(self.folder)
            except OSError as error:
                self.say(f"the record can't be written: {error}")

    # ── Opening ────────────────────────────────────────────────────────────────────────────────────────────────────
    def open(self) -> bool:
        """Make the rig, and look whether an experiment may begin. False: it may not; the record will say why.

        Interrupted: what was opened is closed by ``close``.
        """
        global _current
        _current = self
        ours, options = self.experiment.ours, self.options
        self._stack.enter_context(toolkit.logged(self.folder / LOG, quiet=options.command != ""))
        self.save()
        try:
            # Before anything is started there: whoever ends what we leave touches no folder without the mark.
            mark(options.folder.rig)
            if self._desk is not None:
                self._stack.callback(self._desk.close)
                self._desk.open()
            self._stack.enter_context(self._armoury)
            opened: OpenRig = importlib.import_module(ours.rig).open_rig
            order = Order(
                needs=ours.needs, profile=ours.profile, app=ours.app, traffic=ours.traffic, weak=self.record.weak,
                seed=options.seed, folder=options.folder.rig, fetched=options.fetched, run=self.folder,
                options=ours.options,
            )  # fmt: skip
            # Which parts it starts would tell what is to come.
            say = self._said if self._desk is None else self._log
            self._rig = self._stack.enter_context(opened(order, arm=self._faults, say=say))
            self._faults.rig = self._rig
            self._watch(self._rig)
            self._invalid += preflight.look(
                self._rig, self.experiment, self._faults, self._steady, given_up=self._given_up,
                named=self.experiment.at.hosts if self.experiment.at is not None else frozenset(),
                samples=lambda: self.seen()[0],
            )  # fmt: skip
            delay_s = options.drill.delay_s if options.drill is not None else 0.0
            preflight.wait(ours.seconds.before + delay_s, given_up=self._given_up)
            # What began meanwhile is somebody's real incident: nothing is added to it.
            self._invalid += preflight.alerts(self._rig, ours.seconds.warm, self._given_up)
        except SeawallError as error:
            self._invalid.append(f"the rig can't be made: {error}")
        except Exception as error:  # noqa: BLE001 - a rig of a user's own: whatever it raises, nothing was shown
            self._invalid.append(f"the rig can't be made: {spelt(error)}")
        self.save()
        return not self._invalid and not self.sentry.ordered

    def _watch(self, rig: Rig) -> None:
        self.samples = Sampler(
            rig, self.folder, clock=self.clock, more=self._more, moment=self.moment, died=self.sentry.end
        )
        self._stack.callback(self.samples.stop)
        self._stack.callback(self.sentry.stop)
        self.samples.start()
        self.sentry.start()

    def _said(self, text: str) -> None:
        self.say(text)
        self._log(text)

    def _log(self, text: str) -> None:
        with suppress(OSError), (self.folder / LOG).open("a", encoding="utf-8") as log:
            log.write(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S,%f} lab {text}\n")

    # ── While it is played (toolkit.Player) ────────────────────────────────────────────────────────────────────────
    def playing(self, *, now: bool) -> None:
        self.sentry.playing = now
        if now and self._played_s is None:
            self._played_s = self.clock()

    def gate(self) -> None:
        """Wait for a good moment: on a machine that is shared a second of it is slow now and then, and the gate looks
        but once."""
        self._steady.wait(self.experiment.ours.seconds.warm, given_up=self._given_up, times=1)

    def began(self, activity: Mapping[str, Any]) -> None:
        self.moment("step", str(activity.get("name")))
        if self._desk is None:
            self.say(str(activity.get("name")))

    def ended(self, activity: Mapping[str, Any], run: Mapping[str, Any]) -> None:
        if run.get("status") == "failed":
            # Chaos Toolkit would go on; what comes after an action that failed shows nothing.
            self.sentry.end(toolkit.failures({"run": [run]})[0], Status.INVALID)
        elif activity.get("type") == "action" and not self._faults.look():
            self.sentry.end(f"{activity.get('name')}: it isn't as it was meant", Status.INVALID)

    def looked(self, held: bool) -> None:
        self._states.append((round(self.clock(), 3), held))

    def played(self) -> None:
        """Hold what is still broken until it has lasted long enough."""
        least_s = self.experiment.ours.seconds.min
        while self._faults.there and self.clock() - self._faults.first_s < least_s and not self.sentry.ordered:
            time.sleep(HOLD_S)
        if self._desk is not None:
            self._hold_for_people()

    def _hold_for_people(self) -> None:
        longest_s = max(0.0, self.experiment.ours.seconds.max - drill.SPARE_S)
        while not drill.over(self.record) and not self.sentry.ordered:
            if self._faults.faults and self.clock() - self._faults.first_s > longest_s:
                self.moment("act", "the longest time was over")
                return
            time.sleep(HOLD_S)

    def rolling_back(self) -> None:
        self._faults.by = "rollback"

    def moment(self, kind: str, text: str) -> None:
        """Keep one moment, now."""
        if kind == KILLED:
            self._faults.struck(text)
        self.record.moments.append(Moment(at_s=round(self.clock(), 3), kind=kind, text=text))
        self.save()

    def why(self) -> str:
        """Why it may not begin, or must end."""
        return "; ".join([*self._invalid, *(each.why for each in self.sentry.orders)]) or "it was interrupted"

    # ── Guarding ───────────────────────────────────────────────────────────────────────────────────────────────────
    def _given_up(self) -> bool:
        return self.sentry.ordered

    def foot(self) -> str:
        """What people in a drill are told all the time; "" when it is none."""
        if self._desk is None:
            return ""
        assert self.record.drill is not None
        said = [each.word for each in self.record.drill.marks]
        count = f"seen {said.count(drill.SEEN)}, acts {said.count(drill.ACTED)}"
        return (f"{self.clock():6.1f} s  drill: {count}. Enter: seen; a text: an act; done: it ends. "
                "Ctrl-C or `seawall lab panic` ends it at once")  # fmt: skip

    def _mark(self) -> None:
        for made in self._desk.look() if self._desk is not None else ():
            assert self.record.drill is not None
            self.record.drill.marks.append(made)
            self.moment("act", f"{made.word}: {made.text}" if made.text else made.word)
            self.say(f"{made.word} noted")
            if made.word == drill.DONE and not self._faults.faults:
                self.sentry.end("people were done before anything was broken")

    def _more(self) -> Mapping[str, float]:
        self._mark()
        found = {"lab.faults_count": float(sum(each.ended_s is None for each in self._faults.faults))}
        if self._states:
            found[STEADY] = float(self._states[-1][1])
        return found

    def _look(self) -> str:
        """Why the run must end; "" when it needn't."""
        if self._ending:
            return ""
        self._looks.append(self.clock())
        assert self._rig is not None and self.samples is not None
        seconds = self.experiment.ours.seconds
        if why := self._rig.broken():
            return f"the rig is broken: {why}"
        if self._faults.there and self.clock() - self._faults.first_s > seconds.max:
            return f"the faults have lasted {seconds.max:g} s, the longest that was allowed"
        if self.sentry.playing and self._played_s is not None:
            longest_s = seconds.max + PLAY_MORE_S
            if self.clock() - self._played_s > longest_s:
                return f"the method has taken {longest_s:g} s"
        if not self.samples.samples:
            return ""
        last = self.samples.samples[-1]
        if self.clock() - last.at_s > UNSEEN_S:
            return f"nothing was measured for {UNSEEN_S:g} s"
        if last.values[DISK] < DISK_FREE_MB_MIN:
            return f"only {last.values[DISK]:.0f} MiB are free on the disk of {self.folder}"
        if last.values[MEMORY] > self.experiment.ours.memory_mb:
            return f"the rig's processes hold {last.values[MEMORY]:.0f} MiB of memory"
        return self._conditions.met(last)

    def _abort(self, why: str) -> None:
        """Revert at once; in the sentry's thread."""
        self._armoury.stop(why)
        undone = self._armoury.undo_all(by="abort")
        for line in (f"aborted: {why}", *(done.text for done in undone)):
            self._said(line)
        self.moment("act", f"aborted: {why}")

    # ── Concluding ─────────────────────────────────────────────────────────────────────────────────────────────────
    def conclude(self) -> Record:
        """Revert what is left, see the platform recover, judge. The record is written whole on return.

        Interrupted: reverted is what there is; ``close`` does it again.
        """
        self.sentry.settle()
        journal = self.handler.journal
        self._invalid += [why for why in toolkit.failures(journal) if not self.sentry.ordered]
        self._revert()
        with suppress(OSError):
            toolkit.keep(journal, self.folder)
        if self._rig is not None and self._faults.faults and not self.sentry.ordered:
            self._recover(self._rig)
        elif self._rig is not None and self._faults.faults and self.experiment.at is not None:
            self._see_well(self._rig)
        elif not self._invalid and not self.sentry.ordered:
            self._invalid.append("nothing was broken")
        self._judge()
        return self.record

    def _revert(self) -> None:
        by = "abort" if self.sentry.ordered else "runner"
        left = [done for done in self._armoury.undo_all(by=by, final=True) if not done.ok]
        self._broken = [done.text for done in left]
        for done in left:
            self._said(done.text)
        self.save()

    def _see_well(self, rig: Rig) -> None:
        """Of an installation that isn't ours people want to know after an abort, too, whether it is well again."""
        recover_s, orders = self.experiment.ours.seconds.recover, len(self.sentry.orders)
        if blind := rig.broken():
            self._unwell = f"reverted, and nobody can say whether it is steady again: {blind}"
            return
        self.say(f"reverted; looking for {recover_s:g} s at most whether it is steady again. Ctrl-C: don't look")
        why = self._steady.wait(recover_s, given_up=lambda: len(self.sentry.orders) > orders)
        self._states.append((round(self.clock(), 3), not why))
        self.say("the steady state holds again" if not why else f"the steady state doesn't hold: {why}")
        self._well(why)

    def _well(self, why: str) -> None:
        if why and self.experiment.at is not None:
            self._unwell = f"reverted, and not seen steady again: {why}"

    def _recover(self, rig: Rig) -> None:
        seconds, record = self.experiment.ours.seconds, self.record
        if not self._broken:
            self._faults.prove_whole("everything was undone")
        self.say("everything was undone; waiting for the steady state")
        why = self._steady.wait(seconds.recover, given_up=self._given_up)
        # What the hypothesis said while nobody played it: from here on it holds, or it never did.
        self._states.append((round(self.clock(), 3), not why))
        self.say("the steady state holds again" if not why else f"the steady state doesn't hold: {why}")
        self._well(why)
        if self.options.on:
            said = why or "it holds"
            record.expectations.append(
                Expectation(claim=f"steady again within {seconds.recover:g} s", held=not why, said=said)
            )
        self.say("comparing the ledger with what is there")
        # From here on traffic ends on purpose: that is no sign of anything, and nothing that is measured then counts.
        self._ending = True
        if self.samples is not None:
            self.samples.stop()
        try:
            record.verdict = dict(rig.finish(seconds.drain))
        except SeawallError as error:
            self._invalid.append(f"there is no verdict: {error}")
        except Exception as error:  # noqa: BLE001 - whatever became of the ledger, nothing is shown without it
            self._invalid.append(f"there is no verdict: {spelt(error)}")
        record.facts = {**rig.facts(), **record.facts}

    def _judge(self) -> None:
        record, faults = self.record, self._faults.faults
        # Of one moment: who is told to end now, and was not just before, would be judged without having been looked at.
        self.sentry.settle()
        orders = list(self.sentry.orders)
        record.detect_s = times.detect_s(faults, record.moments)
        drill.judge(record)
        record.mitigate_s = times.mitigate_s(faults, self._states)
        record.recover_s = times.recover_s(faults, self._states)
        if faults and not orders:
            self._expect()
        if not record.expectations and not orders:
            self._invalid.append("nothing that was expected was looked at")
        judge.conclude(record, orders=orders, invalid=self._invalid, broken=self._broken)
        if self._unwell and record.status is not Status.NOT_AS_EXPECTED:
            record.why.append(self._unwell)
        self.save()

    def _expect(self) -> None:
        least_s, last_s = self.experiment.ours.seconds.min, self._faults.last_s
        if least_s and last_s is not None:
            lasted_s = last_s - self._faults.first_s
            self._faults.prove(
                f"the faults lasted {least_s:g} s at least", held=lasted_s >= least_s, said=f"{lasted_s:.1f} s"
            )
        samples, faults = self.seen()
        held, said = watch.look(samples, self._looks, faults, now_s=self.clock())
        self._faults.prove(watch.CLAIM, held=held, said=f"at the longest {said}")
        verdict = self.record.verdict
        if self.experiment.ours.traffic and not self._invalid:
            accepted = verdict.get("accepted", 0)
            self._faults.prove("something was accepted", held=accepted > 0, said=f"{accepted} events")
        seen = Seen(self.record, samples)
        for found in judge.find(self._visible(self.experiment.ours.effects, seen), seen):
            self._faults.prove(found.claim, held=found.held, said=found.said)
        claims = self._visible(self.experiment.claims(on=self.options.on), seen)
        if not claims:
            self._invalid.append("nothing of what is expected could be seen")
        self.record.expectations += judge.find(claims, seen)
        if self.options.on and verdict:
            self.record.expectations += judge.safe(verdict, self.experiment.claims(on=True))

    def _visible(self, claims: Sequence[Claim], seen: Seen) -> list[Claim]:
        """Without those about what was never measured, where the rig isn't ours: nobody promised that it is there."""
        if self.experiment.at is None:
            return list(claims)
        kept, unseen = judge.visible(claims, seen)
        self.record.unseen += unseen
        return kept

    def close(self) -> None:
        """Revert what is left, end the rig, and say goodbye to the watchdog. Harmless when called twice."""
        global _current
        try:
            if self.record.status is Status.RUNNING:
                self.sentry.settle()
                if not self.sentry.orders:
                    self._invalid.append("the runner broke off before it had looked at everything")
                self._revert()
                self._judge()
        finally:
            self._stack.close()
            self.save()
            self._keep()
            if _current is self:
                _current = None

    def _keep(self) -> None:
        """Among all runs of the folder, once."""
        if self._kept:
            return
        self._kept = True
        try:
            history.keep(self.options.folder.path, self.record)
        except OSError as error:
            self.say(f"the history can't be written: {error}")
