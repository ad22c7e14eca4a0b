"""The doctor reads what the checks want to know: seeded into real files, and brokers that are away, each is found."""

from __future__ import annotations

import asyncio
import importlib
import json
import logging
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from collector.authority import Authority
from seawall.cli.doctor import CRITICAL, doctor
from seawall.journal import LocalFilesystem
from seawall.kernel.clock import SystemClock
from seawall.machine.doctor import Finding, Severity, examine
from seawall.machine.doctor.examine import carried_out
from seawall.machine.folder import Folder
from seawall.settings import Settings, load_resolved, read
from seawall.store.pool import Settings as StoreSettings
from seawall.store.pool import Store
from seawall.testing.kafka import MockKafka
from seawall.testing.postgres import Database

NOBODY = "127.0.0.1:1"


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    made = Folder(tmp_path / "D", LocalFilesystem())
    made.prepare()
    return made


OWN = ("kafka", "certificate", "secret", "check", "store")


async def said_of(folder: Folder, settings: Settings, *, dsn: str = "") -> list[Finding]:
    """Findings; those that this machine has by itself are left out."""
    said = await examine(folder, settings, dsn=dsn, clock=SystemClock(), pid=1, embedded=True)
    return [one for one in said if one.check.split("-")[0] in OWN]


async def found(folder: Folder, **flags: str) -> dict[str, Finding]:
    """The same by check."""
    named = {name.replace("__", "."): value for name, value in flags.items()}
    said = await said_of(folder, read(named, config=None, environment={}))
    return {one.check: one for one in reversed(said)}  # the worst of each check, which comes first


async def in_cluster(
    folder: Folder, bootstrap: str, properties: str | None = None, mode: int = 0o600
) -> dict[str, Finding]:
    flags = {"profile": "cluster", "kafka__bootstrap": bootstrap}
    if properties is not None:
        file = folder.path / "kafka.properties"
        file.write_text(properties)
        file.chmod(mode)
        flags["kafka__client_file"] = str(file)
    return await found(folder, **flags)


async def test_the_embedded_profile_has_no_kafka_to_be_asked_about(folder: Folder) -> None:
    assert not await found(folder, kafka__bootstrap=NOBODY)


async def test_brokers_that_dont_answer_are_named_with_why(folder: Folder) -> None:
    said = await in_cluster(folder, NOBODY)
    assert said["kafka"].severity is Severity.CRITICAL
    assert NOBODY in said["kafka"].what and "refused" in said["kafka"].what


async def test_a_topic_that_isnt_there_is_told_apart_from_brokers_that_arent(folder: Folder) -> None:
    with MockKafka("another") as mock:
        said = await in_cluster(folder, mock.bootstrap)
    assert set(said) == {"kafka-topic"}
    assert "no topic seawall" in said["kafka-topic"].what


@pytest.mark.parametrize(
    ("properties", "words"),
    [
        ("acks=0\n", "kafka.properties:1: must be NAME=VALUE"),
        ("security.protocol=SSL\nssl.ca.location=/nowhere/ca.pem\n", "ssl.ca.location = /nowhere/ca.pem"),
        ("security.protocol=odd\nsasl.password=hunter2\n", "security.protocol"),
        ("sasl.pasword=hunter2\n", "sasl.pasword"),
        ("security.protocol=ssl\nssl.key.pem=hunter2\n", "ssl.key.pem"),
    ],
)
async def test_a_clients_file_that_cant_be_used_is_told_without_its_secrets(
    folder: Folder, properties: str, words: str
) -> None:
    said = await in_cluster(folder, NOBODY, properties)
    text = " ".join(one.line() for one in said.values())
    assert words in text
    assert "hunter2" not in text
    assert said["kafka-security"].severity is Severity.CRITICAL


async def test_a_secret_that_others_may_read_and_one_that_nobody_is_asked_for(folder: Folder) -> None:
    said = await in_cluster(folder, NOBODY, "sasl.username=u\nsasl.password=hunter2\n", 0o644)
    assert said["secret-files"].severity is Severity.CRITICAL and "kafka.properties" in said["secret-files"].what
    assert "nobody is asked for a password" in said["kafka-security"].why
    assert "hunter2" not in " ".join(one.line() for one in said.values())


@pytest.mark.parametrize(
    ("days", "severity", "words"),
    [(20, Severity.WARNING, "expires in"), (3, Severity.CRITICAL, "expires in"), (-1, Severity.CRITICAL, "expired")],
)
async def test_a_certificate_that_ends_soon_is_found(
    folder: Folder, days: float, severity: Severity, words: str
) -> None:
    certificate, key = Authority().put(folder.path, days=days)
    key.chmod(0o600)
    said = await found(folder, collector__tls_certificate=str(certificate), collector__tls_key=str(key))
    assert (said["certificate"].severity, set(said)) == (severity, {"certificate"})
    assert words in said["certificate"].what


async def test_a_certificate_with_another_ones_key_and_a_key_that_others_may_read(folder: Folder) -> None:
    certificate, _ = Authority().put(folder.path)
    other = folder.path / "other"
    other.mkdir()
    _, key = Authority().put(other)
    key.chmod(0o644)
    said = await found(folder, collector__tls_certificate=str(certificate), collector__tls_key=str(key))
    assert "can't be used" in said["certificate"].what
    assert str(key) in said["secret-files"].what
    key.unlink()
    said = await found(folder, collector__tls_certificate=str(certificate), collector__tls_key=str(key))
    assert "can't be used" in said["certificate"].what


def test_the_command_says_it_as_json_and_by_its_exit_status(folder: Folder) -> None:
    (folder.path / "seawall.toml").write_text(f'profile = "cluster"\n[kafka]\nbootstrap = "{NOBODY}"\n')
    result = CliRunner().invoke(doctor, ["--data", str(folder.path), "--json"], standalone_mode=False)
    assert result.return_value == CRITICAL
    [said] = [one for one in json.loads(result.stdout) if one["check"] == "kafka"]
    assert said["severity"] == "critical" and said["why"] and said["cure"]


@pytest.mark.parametrize(
    ("text", "tells"),
    [
        ('dsn = "postgresql://u:s3cret@127.0.0.1:1/x"\n', True),
        ('worker_dsn = "postgresql:///x?password=s3cret"\n', True),
        ('[cache]\nurl = "redis://:s3cret@127.0.0.1:1"\n', True),
        ('[watch]\nwebhook_secret = "whsec_c2VjcmV0"\n', True),
        ('[watch]\nwebhook_url = "https://pager.example/in"\n', False),
        ('dsn = "postgresql://u@127.0.0.1:1/x"\n[cache]\nurl = "redis://127.0.0.1:1"\n', False),
    ],
)
@pytest.mark.parametrize("beside", [False, True])
async def test_a_settings_file_with_a_password_that_others_may_read_is_found(
    folder: Folder, text: str, *, tells: bool, beside: bool
) -> None:
    folder.settings_file.write_text(text)
    folder.settings_file.chmod(0o644)
    settings = read({}, config=folder.settings_file, environment={})
    if beside:  # a running platform, whose settings are those that it has written down
        folder.resolved_file.touch(0o600)
        folder.resolved_file.write_text(settings.resolved(settings.program.dsn, settings.program.worker_dsn))
        settings = load_resolved(folder.resolved_file)
    said = [one for one in await said_of(folder, settings) if one.check == "secret-files"]
    assert [one.what for one in said] == ([f"{folder.settings_file} has mode 0644"] if tells else [])
    folder.settings_file.chmod(0o600)
    assert not [one for one in await said_of(folder, settings) if one.check == "secret-files"]


async def test_a_secrets_own_file_is_looked_at_beside_a_running_platform_too(folder: Folder) -> None:
    file = folder.path / "dsn"
    file.write_text("postgresql://u:s3cret@127.0.0.1:1/x\n")
    file.chmod(0o640)
    settings = read({"dsn_file": str(file)}, config=None, environment={})
    folder.resolved_file.touch(0o600)
    folder.resolved_file.write_text(settings.resolved(settings.program.dsn, ""))
    [one] = await said_of(folder, load_resolved(folder.resolved_file))
    assert (one.check, one.what) == ("secret-files", f"{file} has mode 0640")


async def test_a_check_that_crashes_is_a_finding_with_its_stack_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async def crash() -> list[Finding]:
        raise ValueError("invalid: 's3cret'")

    with caplog.at_level(logging.WARNING):
        [one] = await carried_out("redis", crash)
    assert (one.check, one.severity) == ("check-failed", Severity.WARNING)
    assert "the check redis" in one.what and "ValueError" in one.what and "s3cret" not in one.line()
    [line] = caplog.records
    assert line.exc_info is not None and line.exc_info[0] is ValueError


async def test_a_disk_that_hangs_stops_neither_the_loop_nor_the_other_checks(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of this machine can be looked at while a mount hangs; whoever runs beside must not wait with it."""
    release, room = threading.Event(), importlib.import_module("seawall.machine.doctor.examine")
    monkeypatch.setattr(room, "LOOKS_S", 0.2)
    monkeypatch.setattr(room, "_rooms", lambda _: iter([release.wait(30)]))
    began = time.monotonic()
    examined = asyncio.create_task(
        said_of(folder, read({}, config=None, environment={}), dsn="postgresql://u@127.0.0.1:1/x")
    )
    try:
        said = {one.what for one in await examined}
    finally:
        release.set()
    assert time.monotonic() - began < 20, "the loop waited with it"
    assert "the check disk can't be carried out: the disk is unavailable: it said nothing for 0.2 s" in said
    assert "the check clock can't be carried out: the disk is unavailable: it said nothing for 0.2 s" in said
    assert [one for one in await examined if one.check == "store"]


async def test_the_file_of_kafkas_client_may_lie_on_a_disk_that_hangs(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.import_module("seawall.machine.doctor.examine"), "LOOKS_S", 1.5)
    file = folder.path / "kafka.properties"
    os.mkfifo(file)  # whoever opens it to read waits for a writer
    flags = {"profile": "cluster", "kafka.bootstrap": NOBODY, "kafka.client_file": str(file)}
    examined = asyncio.create_task(said_of(folder, read(flags, config=None, environment={})))
    written = threading.Event()
    writer = threading.Timer(20.0, lambda: written.set() or file.write_bytes(b""))  # else a loop that waits never ends
    writer.start()
    try:
        await asyncio.wait([examined])
    finally:
        writer.cancel()
        with open(os.open(file, os.O_RDWR | os.O_NONBLOCK), "wb"):
            pass
    [one] = await examined
    assert not written.is_set() and one.check == "check-failed"
    assert one.what == "the check kafka can't be carried out: the disk is unavailable: it said nothing for 1.5 s"


def test_the_command_ends_though_a_disk_hangs(folder: Folder) -> None:
    certificate, key = folder.path / "certificate.pem", folder.path / "key.pem"
    os.mkfifo(certificate)
    key.touch(0o600)
    folder.settings_file.write_text(f'[collector]\ntls_certificate = "{certificate}"\ntls_key = "{key}"\n')
    code = (
        "import importlib, sys; importlib.import_module('seawall.machine.doctor.examine').LOOKS_S = 0.5;"
        f"from seawall.cli import main; sys.argv = ['seawall', 'doctor', '--data', {str(folder.path)!r}]; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=30, env=os.environ
    )
    assert "the check certificate can't be carried out: the disk is unavailable" in done.stdout
    assert done.returncode in (1, CRITICAL)


async def test_a_check_that_crashes_takes_no_other_with_it(folder: Folder) -> None:
    """Settings that an older version took, as a platform that still runs has written them down."""
    settings = read({}, config=None, environment={})
    folder.resolved_file.touch(0o644)
    folder.resolved_file.write_text(settings.resolved("", "postgresql://u:s3cret/pw@127.0.0.1:1/x"))
    said = await said_of(folder, load_resolved(folder.resolved_file), dsn="postgresql://u:s3cret/pw@127.0.0.1:1/x")
    assert "the check store" in " ".join(one.what for one in said if one.check == "check-failed")
    assert "s3cret" not in " ".join(one.line() for one in said)
    folder.resolved_file.write_text(settings.resolved("postgresql://u:s3cret/pw@127.0.0.1:1/x", ""))
    said = await said_of(folder, load_resolved(folder.resolved_file), dsn="postgresql://u:s3cret/pw@127.0.0.1:1/x")
    assert "percent-encoded" in next(one.what for one in said if one.check == "store")
    assert "s3cret" not in " ".join(one.line() for one in said)


async def test_a_file_that_vanishes_between_two_looks_is_no_error(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda path: iter([*listed(path), path / "replaced-just-now"]))
    assert not await found(folder)


def ephemeral() -> tuple[int, int]:
    first, _ = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
    return int(first), int(first) + 1


async def test_ports_of_all_local_hosts_of_a_store_and_of_kafka_are_looked_at(folder: Folder) -> None:
    one, two = ephemeral()
    flags = {
        "dsn": f"postgresql://127.0.0.1:1,elsewhere:{two},localhost:{one}/x",
        "profile": "cluster", "kafka.bootstrap": f"elsewhere:{one},PLAINTEXT://127.0.0.1:{two}",
        "cache.url": f"redis://[::1]:{two},elsewhere:{one}",
    }  # fmt: skip
    settings = read(flags, config=None, environment={})
    said = await examine(folder, settings, dsn="", clock=SystemClock(), pid=1, embedded=False)
    found = {one.what.partition(" lies")[0] for one in said if one.check == "ports"}
    assert found == {f"port {one} of the store", f"port {two} of Kafka", f"port {two} of Redis"}


async def test_a_commit_that_doesnt_last_is_found_wherever_it_is_set(folder: Folder, database: Database) -> None:
    settings = read({}, config=None, environment={})
    name = database.name

    async def told() -> list[str]:
        said = await said_of(folder, settings, dsn=database.dsn)
        return [one.what for one in said if "synchronous_commit" in one.what]

    async with Store(StoreSettings(dsn=database.dsn), role="test") as store:
        await store.execute(f"alter role seawall in database {name} set synchronous_commit = on")
        assert await told() == []
        await store.execute(f"alter role seawall_worker in database {name} set synchronous_commit = off")
        assert await told() == ["PostgreSQL commits with synchronous_commit = off for seawall_worker"]
        await store.execute(f"alter role seawall_worker in database {name} set synchronous_commit = local")
        assert await told() == []
        await store.execute(f"alter database {name} set synchronous_commit = off")
        assert await told() == []
        await store.execute(f"alter role seawall_worker in database {name} reset synchronous_commit")
        assert await told() == ["PostgreSQL commits with synchronous_commit = off for seawall_worker"]
        await store.execute(f"alter role seawall in database {name} reset synchronous_commit")
        assert await told() == ["PostgreSQL commits with synchronous_commit = off"]
