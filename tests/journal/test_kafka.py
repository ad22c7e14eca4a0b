"""Kafka as the journal, with the local log as its spool, over brokers in memory that refuse, hang and come back.

Those brokers are the client library's own: real ones are met by the tests marked ``parts``.
"""

from __future__ import annotations

import asyncio
import errno
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from confluent_kafka import KafkaError, KafkaException
from kafka_rig import IDS, Desk, opened, record, replicated, until, written

from seawall.guard.breaker import State
from seawall.guard.supervisor import Supervisor
from seawall.journal import LocalFilesystem, cluster
from seawall.journal.kafka import KafkaLog, Partitions, Topic, TopicWatch, producer
from seawall.journal.kafka.client import client_of
from seawall.journal.kafka.topic import NoTopic
from seawall.kernel.alert import Alerts
from seawall.kernel.clock import SystemClock
from seawall.kernel.error import Overloaded, Unavailable
from seawall.kernel.metric import Metrics
from seawall.testing import FaultyFilesystem
from seawall.testing.kafka import NOT_ENOUGH_REPLICAS, PRODUCE, TOO_LARGE, MockKafka
from stall import Stopwatch

pytestmark = pytest.mark.parts  # the client library's own brokers, but half a minute and more

OUTAGE_ANSWER_S = 1.1
OPEN_S = 2.0
SILENT_MS = 5000
"""Longer than the client library waits for a record."""

PATIENT_S = 4.0
"""For an ack, where nothing is wrong with Kafka: a busy machine takes longer than a second now and then."""


@pytest.fixture
def mock() -> Iterator[MockKafka]:
    with MockKafka("seawall", partitions=2) as brokers:
        yield brokers


async def test_a_healthy_cluster_answers_replicated_and_spools_nothing(mock: MockKafka, tmp_path: Path) -> None:
    async with opened(mock, tmp_path, ack_timeout_s=PATIENT_S) as desk:
        await desk.warm()
        before = desk.joint.report()
        answers = await desk.send(*(record(b"%d" % n) for n in range(500)))
        assert all(replicated(answers))
        after = desk.joint.report()
        assert {name: after[name] - before[name] for name in after} == {
            "replicated": 500, "spooled": 0, "parked": 0, "forwarded": 0, "durable": 500
        }  # fmt: skip
        assert not desk.names()
    bodies = Counter(written(mock, expect=501))
    assert all(bodies[b"%d" % n] == 1 for n in range(500))


async def test_an_ack_of_a_topic_with_too_few_replicas_is_not_called_durable(mock: MockKafka, tmp_path: Path) -> None:
    """One machine's memory is no disk: such events are synced here first, then forwarded."""
    async with opened(mock, tmp_path, facts={"replicas": 1, "in_sync_min": 1}) as desk:
        assert replicated(await desk.send(*(record(b"%d" % n) for n in range(20)))) == [False] * 20
        assert "kafka-topic" in desk.names()
        await until(lambda: desk.joint.report()["forwarded"] == 20)
    assert len(written(mock, expect=20)) == 20


async def test_a_topic_that_would_delete_events_is_given_none_until_it_is_mended(
    mock: MockKafka, tmp_path: Path
) -> None:
    facts: dict[str, Any] = {"compacted": True}
    async with opened(mock, tmp_path, facts=facts) as desk:
        assert replicated(await desk.send(*(record(b"%d" % n) for n in range(20)))) == [False] * 20
        assert "kafka-topic" in desk.names()
        # Longer than forwarding would take.
        await asyncio.sleep(1.0)
        assert desk.joint.report()["forwarded"] == 0
        facts.clear()
        await until(lambda: desk.joint.report()["forwarded"] == 20)
        assert not desk.names()
    assert len(written(mock, expect=20)) == 20


async def test_a_topic_that_isnt_there_is_told_and_found_when_it_was_made(mock: MockKafka, tmp_path: Path) -> None:
    facts: dict[str, Any] = {"error": NoTopic("Kafka", "there is no topic seawall")}
    async with opened(mock, tmp_path, facts=facts) as desk:
        assert replicated(await desk.send(record())) == [False]
        [alert] = desk.alerts.active()
        assert alert.name == "kafka-topic" and "there is no topic" in alert.summary
        facts.clear()
        await until(lambda: desk.joint.report()["forwarded"] == 1)
        assert not desk.names()


async def test_replicated_is_said_only_while_somebody_has_looked_lately(mock: MockKafka, tmp_path: Path) -> None:
    """Nobody knows what the topic is like by now, so an ack may be one machine's memory."""
    facts: dict[str, Any] = {}
    async with opened(mock, tmp_path, facts=facts, confirm_s=3.0, ack_timeout_s=PATIENT_S) as desk:
        await until(lambda: desk.joint.spool.flows)
        await desk.warm()
        before = desk.joint.report()["forwarded"]
        facts["error"] = Unavailable("Kafka", "no answer about the topic")
        await until(lambda: not desk.joint.spool.flows)
        assert replicated(await desk.send(record(b"unknown"))) == [False]
        # It is Kafka's all the same: only what its ack is worth isn't known.
        await until(lambda: desk.joint.report()["forwarded"] == before + 1)
        facts.clear()
        await until(lambda: desk.joint.spool.flows)
        assert replicated(await desk.send(record(b"known again"))) == [True]


async def test_a_topic_whose_replicas_went_away_isnt_believed_from_the_next_look_on(
    mock: MockKafka, tmp_path: Path
) -> None:
    facts: dict[str, Any] = {}
    async with opened(mock, tmp_path, facts=facts) as desk:
        await until(lambda: desk.joint.spool.flows)
        facts["unclean"] = True
        await until(lambda: "kafka-topic" in desk.names())
        await until(lambda: not desk.joint.spool.flows)
        facts.clear()
        await until(lambda: desk.joint.spool.flows)


@pytest.mark.parametrize("silent", [False, True], ids=["gone", "black-holed"])
async def test_an_outage_costs_a_second_once_and_loses_nothing(mock: MockKafka, tmp_path: Path, silent: bool) -> None:
    async with opened(mock, tmp_path) as desk:
        await desk.warm()
        await desk.send(*(record(b"before %d" % n) for n in range(50)))
        if silent:
            mock.slow(SILENT_MS)
        else:
            mock.down()
        watch, slowest, count = Stopwatch(), 0.0, 0
        while desk.joint.spool.breaker.state is State.CLOSED:
            at = time.monotonic()
            # Several at a time, as senders come: each of them waits for itself.
            answers = await asyncio.gather(*(desk.send(record(b"during %d" % (count + n))) for n in range(10)))
            count += 10
            slowest = max(slowest, time.monotonic() - at)
            assert [replicated(each) for each in answers] == [[False]] * 10
        assert watch.s < OPEN_S
        assert slowest < OUTAGE_ANSWER_S + watch.stalled_s
        assert "breaker-open" in desk.names()
        watch = Stopwatch()
        answers = await desk.send(*(record(b"during %d" % (count + n)) for n in range(200)))
        count += 200
        assert watch.s < 1.0, "nobody waits for an open breaker"
        assert replicated(answers) == [False] * 200
        mock.slow(0)
        mock.up()
        await until(lambda: not desk.joint.forwarder.waits, within_s=40)
        await until(lambda: desk.joint.spool.breaker.state is State.CLOSED)
        assert replicated(await desk.send(record(b"after"))) == [True]
        assert not desk.names()
    wanted = {b"before %d" % n for n in range(50)} | {b"during %d" % n for n in range(count)} | {b"after", b"warm"}
    assert set(await asyncio.to_thread(written, mock, expect=len(wanted))) == wanted


async def test_a_send_that_timed_out_is_there_at_least_once(mock: MockKafka, tmp_path: Path) -> None:
    async with opened(mock, tmp_path) as desk:
        await desk.warm()
        mock.slow(2000)
        watch = Stopwatch()
        assert replicated(await desk.send(record(b"late"))) == [False]
        assert watch.s < OUTAGE_ANSWER_S
        mock.slow(0)
        await until(lambda: not desk.joint.forwarder.waits, within_s=30)
    bodies = set(await asyncio.to_thread(written, mock, expect=2))
    assert bodies == {b"warm", b"late"}


async def test_what_was_spooled_reaches_a_kafka_that_is_slow_and_takes_it(mock: MockKafka, tmp_path: Path) -> None:
    """Slow is no reason to send a fresh event there; but what waits already went there one every 15 s."""
    async with opened(mock, tmp_path) as desk:
        await desk.warm()
        mock.slow(700)
        async with asyncio.timeout(20):
            while desk.joint.spool.breaker.state is State.CLOSED:
                await desk.send(*(record(b"%d" % n) for n in range(20)))
        await desk.send(*(record(b"spooled %d" % n) for n in range(1000)))
        await until(lambda: not desk.joint.forwarder.waits, within_s=25)
        assert desk.joint.spool.breaker.state is not State.CLOSED
        mock.slow(0)
        async with asyncio.timeout(40):
            while replicated(await desk.send(record(b"fresh"))) != [True]:
                await asyncio.sleep(0.1)
    bodies = await asyncio.to_thread(written, mock, expect=1000)
    assert {b"spooled %d" % n for n in range(1000)} <= set(bodies)


async def test_a_spool_that_cant_be_read_doesnt_keep_fresh_events_from_kafka(mock: MockKafka, tmp_path: Path) -> None:
    """Its records are the trials of an open breaker; where none can be, it stayed open for as long as the disk."""
    async with opened(mock, tmp_path) as desk:
        await desk.warm()
        desk.joint.forwarder._cursor._filesystem = broken = FaultyFilesystem(LocalFilesystem())
        broken.fail("names", errno.EIO)
        mock.down()
        async with asyncio.timeout(20):
            while desk.joint.spool.breaker.state is State.CLOSED:
                await desk.send(*(record(b"%d" % n) for n in range(20)))
        mock.up()
        async with asyncio.timeout(40):
            while replicated(await desk.send(record(b"fresh"))) != [True]:
                await asyncio.sleep(0.1)
        broken.heal()
        await until(lambda: not desk.joint.forwarder.waits, within_s=20)


async def test_too_few_replicas_in_sync_are_an_outage(mock: MockKafka, tmp_path: Path) -> None:
    async with opened(mock, tmp_path) as desk:
        await desk.warm()
        mock.fail(PRODUCE, [NOT_ENOUGH_REPLICAS] * 500)
        answers = await asyncio.gather(*(desk.send(record(b"%d" % n)) for n in range(20)))
        assert [replicated(each) for each in answers] == [[False]] * 20
        mock.heal(PRODUCE)
        await until(lambda: not desk.joint.forwarder.waits, within_s=40)
    assert set(await asyncio.to_thread(written, mock, expect=21)) == {b"warm", *(b"%d" % n for n in range(20))}


async def test_a_record_too_large_is_parked_and_blocks_nobody(mock: MockKafka, tmp_path: Path) -> None:
    large = record(b"large" * 200_000)
    async with opened(mock, tmp_path, ack_timeout_s=PATIENT_S) as desk:
        await desk.warm()
        mock.fail(PRODUCE, [TOO_LARGE])
        assert replicated(await desk.send(large)) == [False]
        assert replicated(await desk.send(record(b"next"))) == [True]
        assert desk.joint.spool.breaker.state is State.CLOSED
        assert desk.names() == {"records-parked"}
        assert desk.joint.report()["parked"] == 1
    async with opened(mock, tmp_path) as desk:  # Kafka takes it now: each start tries once
        await until(lambda: not desk.joint.returner.waits)
    assert set(await asyncio.to_thread(written, mock, expect=3)) == {b"warm", b"next", b"large" * 200_000}


async def test_a_spooled_record_that_is_too_large_doesnt_hold_up_those_behind_it(
    mock: MockKafka, tmp_path: Path
) -> None:
    async with opened(mock, tmp_path, facts={"replicas": 1}) as desk:
        mock.fail(PRODUCE, [TOO_LARGE])
        await desk.send(record(b"large"))
        await until(lambda: desk.joint.report()["parked"] == 1)
        await desk.send(record(b"next"))
        await until(lambda: not desk.joint.forwarder.waits)
    assert await asyncio.to_thread(written, mock, expect=1) == [b"next"]


async def test_a_full_queue_to_kafka_spools_and_refuses_nothing(mock: MockKafka, tmp_path: Path) -> None:
    async with opened(mock, tmp_path, pending_records_max=10, ack_timeout_s=PATIENT_S) as desk:
        await desk.warm()
        answers = await desk.send(*(record(b"%d" % n) for n in range(100)))
        assert Counter(replicated(answers)) == {True: 10, False: 90}
        await until(lambda: not desk.joint.forwarder.waits)
    assert len(set(await asyncio.to_thread(written, mock, expect=101))) == 101


async def test_a_start_without_kafka_takes_events_and_forwards_what_an_earlier_life_left(
    mock: MockKafka, tmp_path: Path
) -> None:
    mock.down()
    for life in range(2):
        async with opened(mock, tmp_path) as desk:
            answers = await desk.send(*(record(b"%d %d" % (life, n)) for n in range(10)))
            assert replicated(answers) == [False] * 10
    mock.up()
    async with opened(mock, tmp_path) as desk:
        await until(lambda: not desk.joint.forwarder.waits, within_s=30)
    async with opened(mock, tmp_path) as desk:
        await until(lambda: not desk.joint.forwarder.waits, within_s=30)
        assert desk.joint.report()["forwarded"] == 0, "the checkpoint was kept"
        await desk.send(record(b"last"))
        # So soon after a start it may have gone to the spool, which is as good an answer.
        await until(lambda: not desk.joint.forwarder.waits, within_s=30)
    wanted = {b"%d %d" % (life, n) for life in range(2) for n in range(10)} | {b"last"}
    assert set(await asyncio.to_thread(written, mock, expect=21)) == wanted


async def test_stopping_spools_what_waits_for_kafka_and_waits_for_no_network(mock: MockKafka, tmp_path: Path) -> None:
    async with opened(mock, tmp_path) as desk:
        await desk.warm()
        mock.down()
        heard: list[object] = []
        for n in range(20):
            desk.joint.submit(record(b"%d" % n), heard.append)
        watch = Stopwatch()
    assert watch.s < 2.0
    assert replicated(heard) == [False] * 20  # type: ignore[arg-type]
    with pytest.raises(Overloaded):
        desk.joint.submit(record(), heard.append)
    mock.up()
    async with opened(mock, tmp_path) as desk:
        await until(lambda: not desk.joint.forwarder.waits, within_s=30)
    assert set(await asyncio.to_thread(written, mock, expect=21)) >= {b"%d" % n for n in range(20)}


async def test_an_ordered_source_queues_behind_its_own_spooled_records(mock: MockKafka, tmp_path: Path) -> None:
    ordered = IDS.next()
    async with opened(
        mock, tmp_path, ordered=frozenset((ordered,)), forward_rate=20, forward_batch=1, ack_timeout_s=PATIENT_S
    ) as desk:
        await desk.warm()
        desk.joint.spool.breaker.force(State.FORCED_OPEN)
        await desk.send(*(record(b"%d" % n, ordered) for n in range(10)))
        desk.joint.spool.breaker.force(State.FORCED_CLOSED)
        assert replicated(await desk.send(record(b"10", ordered))) == [False], "it waits behind the others"
        assert replicated(await desk.send(record(b"free"))) == [True], "others don't"
        await until(lambda: not desk.joint.forwarder.waits)
        assert replicated(await desk.send(record(b"11", ordered))) == [True]
    mine = [body for body in await asyncio.to_thread(written, mock, expect=14) if body.isdigit()]
    assert mine == [b"%d" % n for n in range(12)]


async def test_ordered_sources_keep_their_order_over_outages_of_every_kind(mock: MockKafka, tmp_path: Path) -> None:
    """Refused connections, answers that come too late, refusals: each time with sends on their way."""
    ids = [IDS.next() for _ in range(3)]
    sent: Counter[bytes] = Counter()
    heard: list[object] = []
    going = True

    async def feed(desk: Desk) -> None:
        while going:
            for id in ids:
                for _ in range(3):
                    desk.joint.submit(record(b"%s %d" % (id.hex().encode(), sent[id]), id), heard.append)
                    sent[id] += 1
            await asyncio.sleep(0.02)

    async with opened(mock, tmp_path, ordered=frozenset(ids)) as desk:
        feeding = asyncio.create_task(feed(desk))
        for harm, heal in (
            (mock.down, mock.up),
            (lambda: mock.slow(1500), lambda: mock.slow(0)),
            (lambda: mock.fail(PRODUCE, [NOT_ENOUGH_REPLICAS] * 500), lambda: mock.heal(PRODUCE)),
            (lambda: mock.slow(1000), lambda: mock.slow(0)),
            (mock.down, mock.up),
        ):
            before = desk.joint.report()["replicated"]
            await until(lambda b=before: desk.joint.report()["replicated"] > b + 50, within_s=40)  # type: ignore[misc]
            harm()
            # Long enough that the client has begun to forget what is on its way.
            await asyncio.sleep(3.5)
            heal()
        going = False
        await feeding
        await until(lambda: not desk.joint.forwarder.waits and len(heard) == sum(sent.values()), within_s=60)
        assert desk.joint.report()["spooled"] > 100
    replicated(heard)  # type: ignore[arg-type]
    bodies = list(dict.fromkeys(await asyncio.to_thread(written, mock, expect=sum(sent.values()), within_s=30)))
    for id in ids:
        own = [int(body.split()[1]) for body in bodies if body.startswith(id.hex().encode())]
        assert own == list(range(sent[id]))


async def test_a_topic_that_isnt_there_yields_no_partitions_and_says_so(mock: MockKafka) -> None:
    """A router reads other logs beside: those mustn't wait for it."""
    settings, metrics, clock = cluster.Settings(bootstrap=mock.bootstrap), Metrics(), SystemClock()
    there = False

    async def look() -> Topic:
        if not there:
            raise NoTopic("Kafka", "there is no topic seawall")
        return Topic(**mock.facts())

    alerts = Alerts(metrics, clock)
    watch = TopicWatch(look, settings, clock=clock, alerts=alerts)
    supervisor, client = Supervisor(metrics), client_of(settings, "router")
    async with Partitions(client, settings, watch, clock=clock, alerts=alerts, metrics=metrics) as partitions:
        supervisor.add("feeds", partitions.watch)
        async with supervisor:
            assert await partitions.find() == {}
            await until(lambda: "topic seawall" in supervisor.health()[0].reason)
            there = True
            async with asyncio.timeout(10):
                while len(await partitions.find()) < mock.partitions:
                    await asyncio.sleep(0.05)
            await until(lambda: supervisor.health()[0].ready)


async def test_a_spool_that_is_switched_off_stays_while_fresh_events_flow(mock: MockKafka, tmp_path: Path) -> None:
    on = [False]

    def forwarding(*, tenant: str = "", source: str = "") -> bool:
        return on[0]

    async with opened(mock, tmp_path, facts={"unclean": True}, forwarding=forwarding) as desk:
        await desk.send(*(record(b"spooled %d" % n) for n in range(20)))
    async with opened(mock, tmp_path, forwarding=forwarding) as desk:
        late = 0  # a client's first record may miss the ack's deadline: then it is spooled, and stays there too
        async with asyncio.timeout(20):
            while replicated(await desk.send(record(b"fresh"))) != [True]:
                late += 1
                await asyncio.sleep(0.1)
        assert desk.joint.forwarder.waits and desk.joint.report()["forwarded"] == 0
        on[0] = True
        await until(lambda: not desk.joint.forwarder.waits, within_s=30)
        assert desk.joint.report()["forwarded"] == 20 + late


async def test_what_one_machine_may_have_in_memory_is_sent_again_after_trouble(mock: MockKafka, tmp_path: Path) -> None:
    facts: dict[str, Any] = {"unclean": True}
    async with opened(mock, tmp_path, facts=facts) as desk:
        await desk.send(*(record(b"%d" % n) for n in range(20)))
        await until(lambda: desk.joint.report()["forwarded"] == 20)
        assert not desk.joint.forwarder.waits and not desk.joint.forwarder.finished()
        facts["error"] = Unavailable("Kafka", "it is away")
        await until(lambda: desk.joint.topic.failures)
        facts.pop("error")
        await until(lambda: desk.joint.kafka._acks.value == 40)
        await until(lambda: not desk.joint.forwarder.waits)
        assert desk.joint.report()["forwarded"] == 20, "each is counted once"
    found = Counter(await asyncio.to_thread(written, mock, expect=40))
    assert found == {b"%d" % n: 2 for n in range(20)}
    async with opened(mock, tmp_path, facts={"unclean": True}) as desk:
        await until(lambda: desk.joint.report()["forwarded"] == 20)
    assert len(await asyncio.to_thread(written, mock, expect=60)) == 60, "a restart too sends it again"


async def test_a_record_that_can_be_parked_nowhere_is_no_trouble_of_kafkas_and_repeats_no_other(
    mock: MockKafka, tmp_path: Path
) -> None:
    async with opened(mock, tmp_path, facts={"unclean": True}) as desk:
        parked = desk.joint.spool._places
        full = Mock(submit=Mock(side_effect=Overloaded("the disk is full")))
        desk.joint.spool._places = replace(parked, parked=full)
        mock.fail(PRODUCE, [TOO_LARGE] * 1000)
        await desk.send(record(b"large"))
        await until(lambda: "forwarding-stands" in desk.names())
        mock.heal(PRODUCE)
        mock.fail(PRODUCE, [TOO_LARGE] * 4)
        await desk.send(*(record(b"%d" % n) for n in range(5)))
        await until(lambda: full.submit.call_count >= 4)
        assert desk.joint.spool.breaker.state is State.CLOSED
        desk.joint.spool._places = parked
        await until(lambda: not desk.joint.forwarder.waits)
    bodies = await asyncio.to_thread(written, mock, expect=5)
    assert Counter(bodies)[b"0"] == 1 and {b"%d" % n for n in range(5)} <= set(bodies)


async def test_a_topic_made_anew_gets_another_producer(mock: MockKafka, tmp_path: Path) -> None:
    facts: dict[str, Any] = {}
    async with opened(mock, tmp_path, facts=facts) as desk:
        await desk.warm()
        facts["id"] = b"anew" * 4
        await until(lambda: desk.joint.kafka._renewals.value == 1)
        await until(lambda: desk.joint.spool.flows)
        await desk.warm()


async def test_a_producer_that_cant_be_made_again_at_once_is_made_later(
    mock: MockKafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A certificate that is just being replaced: there was no producer from then on, and nothing was forwarded."""
    facts: dict[str, Any] = {}
    async with opened(mock, tmp_path, facts=facts) as desk:
        await desk.warm()
        made, failures = KafkaLog._made, [KafkaException(KafkaError(KafkaError._INVALID_ARG)) for _ in range(2)]

        def fail(self: KafkaLog) -> Any:
            if failures:
                raise failures.pop()
            return made(self)

        monkeypatch.setattr(KafkaLog, "_made", fail)
        facts["id"] = b"anew" * 4
        await until(lambda: not failures)
        await until(lambda: desk.joint.kafka.refusal is None)
        await desk.warm()


async def test_a_producer_that_nothing_comes_of_is_replaced_while_the_cluster_answers(
    mock: MockKafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(producer, "DEAF_S", 4.0)
    async with opened(mock, tmp_path) as desk:
        await desk.warm()
        mock.fail(PRODUCE, [NOT_ENOUGH_REPLICAS] * 500)
        await desk.send(*(record(b"%d" % n) for n in range(20)))
        await until(lambda: desk.joint.kafka._renewals.value >= 1, within_s=20)
        mock.heal(PRODUCE)
        await until(lambda: not desk.joint.forwarder.waits, within_s=40)
        await desk.warm()
    assert {b"%d" % n for n in range(20)} <= set(await asyncio.to_thread(written, mock, expect=21))
