"""How clients of Kafka come to it: what a file of properties may say, that all connections go by it, and that nobody is
told a secret. What real brokers make of it: ``tests/fault/test_kafka_security_parts.py``."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from collector.authority import Authority
from seawall.journal.cluster import Settings
from seawall.journal.kafka.client import client_of
from seawall.journal.kafka.examine import examined
from seawall.kernel.error import Misconfigured, Unavailable

SECRET = "hunter2-hunter2"
NOBODY = "127.0.0.1:1"


def settings(file: Path, text: str, bootstrap: str = NOBODY) -> Settings:
    file.write_text(text)
    return Settings(bootstrap=bootstrap, client_file=str(file), request_timeout_s=1.0)


def test_tls_and_sasl_are_taken_over_and_comments_are_none(tmp_path: Path) -> None:
    ca = Authority().put_own(tmp_path)
    said = f"# ours\nsecurity.protocol = SASL_SSL\n\nsasl.mechanisms=PLAIN\nsasl.username=u\nsasl.password={SECRET}=\n"
    common = client_of(settings(tmp_path / "f", f"{said}ssl.ca.location={ca}\n"), "c1").common
    assert common["security.protocol"] == "SASL_SSL"
    assert common["sasl.password"] == f"{SECRET}=", "only the first = separates"
    assert common["client.id"] == "seawall-c1"


@pytest.mark.parametrize(
    "line",
    [
        "acks=0", "enable.idempotence=false", "bootstrap.servers=elsewhere:1", "message.timeout.ms=1", "debug=all",
        "log_level=7", "plugin.library.paths=x", SECRET, f"={SECRET}", f"pasword={SECRET}",
    ],
)  # fmt: skip
def test_nothing_else_may_be_set_and_the_place_is_told_not_the_line(tmp_path: Path, line: str) -> None:
    with pytest.raises(Misconfigured) as raised:
        client_of(settings(tmp_path / "f", f"security.protocol=plaintext\n{line}\n"), "c1")
    assert f"{tmp_path}/f:2" in str(raised.value)
    assert SECRET not in str(raised.value) and line not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("security.protocol=odd", "security.protocol"),
        (f"sasl.pasword={SECRET}", "sasl.pasword"),
        (f"security.protocol=ssl\nssl.key.pem={SECRET}", "ssl.key.pem"),
        ("security.protocol=ssl\nssl.ca.location=/nowhere/ca.pem", "/nowhere/ca.pem"),
        (f"security.protocol=ssl\nssl.keystore.location=/nowhere/k\nssl.keystore.password={SECRET}", "/nowhere/k"),
    ],
)
def test_what_the_driver_wont_have_refuses_the_start_in_words_without_secrets(
    tmp_path: Path, text: str, words: str
) -> None:
    with pytest.raises(Misconfigured) as raised:
        client_of(settings(tmp_path / "f", text), "c1")
    assert words in str(raised.value) and "kafka.client_file" in str(raised.value)
    assert SECRET not in str(raised.value)


def test_a_file_that_isnt_there_and_one_that_is_no_text_refuse_it_too(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    for name in ("nowhere", "binary"):
        with pytest.raises(Misconfigured, match="can't be read"):
            client_of(Settings(bootstrap=NOBODY, client_file=str(tmp_path / name)), "c1")


@dataclass
class Peer:
    """Something that speaks TLS where a broker should be, and nothing beyond that."""

    port: int
    heard: list[bytes] = field(default_factory=list)


@contextlib.asynccontextmanager
async def listening(authority: Authority, folder: Path) -> AsyncIterator[Peer]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.put(folder))

    async def attend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            peer.heard.append(await reader.read(4096))
        writer.close()

    peer = Peer(0)
    server = await asyncio.start_server(attend, "127.0.0.1", 0, ssl=context)
    peer.port = server.sockets[0].getsockname()[1]
    try:
        yield peer
    finally:
        server.close()
        await server.wait_closed()


async def test_a_broker_is_spoken_to_over_tls_only_when_it_proves_itself(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    ours, another = Authority(), Authority()
    (tmp_path / "another").mkdir()
    login = f"security.protocol=SASL_SSL\nsasl.mechanisms=PLAIN\nsasl.username=u\nsasl.password={SECRET}\n"
    async with listening(ours, tmp_path) as peer:
        for ca, word in ((another.put_own(tmp_path / "another"), "certificate"), (ours.put_own(tmp_path), "")):
            wanted = settings(tmp_path / "f", f"{login}ssl.ca.location={ca}\n", f"127.0.0.1:{peer.port}")
            with pytest.raises(Unavailable) as raised:
                await examined(wanted, client_of(wanted, "doctor"), timeout_s=1.0)
            said = str(raised.value)
            assert word in said.lower() and SECRET not in said
            # A request of Kafka's carries the client's name; of one that trusts us not, nothing is read.
            assert any(b"seawall-doctor" in each for each in peer.heard) is (word == "")
    assert SECRET not in caplog.text
