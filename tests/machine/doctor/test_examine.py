"""The doctor reads what the checks want to know: seeded into real files, and brokers that are away, each is found."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from collector.authority import Authority
from seawall.cli.doctor import CRITICAL, doctor
from seawall.journal import LocalFilesystem
from seawall.kernel.clock import SystemClock
from seawall.machine.doctor import Finding, Severity, examine
from seawall.machine.folder import Folder
from seawall.settings import read
from seawall.testing.kafka import MockKafka

NOBODY = "127.0.0.1:1"


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    made = Folder(tmp_path / "D", LocalFilesystem())
    made.prepare()
    return made


async def found(folder: Folder, **flags: str) -> dict[str, Finding]:
    """Findings by check; those that this machine has by itself are left out."""
    named = {name.replace("__", "."): value for name, value in flags.items()}
    settings = read(named, config=None, environment={})
    said = await examine(folder, settings, dsn="", clock=SystemClock(), pid=1, embedded=True)
    wanted = [one for one in said if one.check.split("-")[0] in ("kafka", "certificate", "secret")]
    return {one.check: one for one in reversed(wanted)}  # the worst of each check, which comes first


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
