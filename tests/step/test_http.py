"""What ``http_request`` sends, keeps and says."""

from __future__ import annotations

import base64
import gzip
import json
import logging
import random
import ssl
from pathlib import Path
from typing import Any

import pytest

from collector.authority import Authority
from seawall import Retry, StepFailed
from seawall.guard.breaker import Cause
from seawall.step import Settings, StepDeclined, StepRefused, StepUnavailable, http_request, secret
from seawall.testing.clock import ManualClock
from seawall.workflow.retry import retry_after_s
from step.rig import Request, Write, answer, serving, toolbox
from workflow.fake import MemoryRun


async def test_a_request_goes_out_as_it_was_given_and_its_answer_is_kept() -> None:
    said = answer(201, b'{"id": 7}', content_type="application/json", x_request_id="r1")
    async with serving(said) as server, toolbox() as made:
        found = await http_request(
            "POST", server.url("/hook?a=1"), json={"n": 1}, headers={"X-Own": "é", "User-Agent": "me"},
            idempotency_key="k1",
        )  # fmt: skip
    assert found["status"] == 201 and (found["kind"], found["body"]) == ("json", {"id": 7})
    assert found["headers"]["x-request-id"] == "r1"
    (sent,) = server.requests
    assert sent.line == "POST /hook?a=1 HTTP/1.1" and sent.body == b'{"n":1}'
    assert sent.headers["host"] == f"127.0.0.1:{server.port}" and sent.headers["connection"] == "close"
    assert sent.headers["content-type"] == "application/json" and sent.headers["idempotency-key"] == "k1"
    assert sent.headers["x-own"] == "é" and sent.headers["user-agent"] == "me"
    assert made.count("seawall_step_calls_total", step="http_request") == 1
    assert made.count("seawall_step_seconds_total", step="http_request") > 0


@pytest.mark.parametrize(
    ("said", "kind", "body"),
    [
        (answer(200), "empty", None),
        (answer(204), "empty", None),
        (answer(200, "é".encode(), content_type="text/plain"), "text", "é"),
        (answer(200, b"\xff", content_type="text/plain"), "base64", "/w=="),
        (answer(200, b"{", content_type="application/json"), "text", "{"),
        (answer(200, b"[1]", content_type="application/vnd.x+json; charset=utf-8"), "json", [1]),
        (answer(200, b"\0\1", content_type="image/png"), "base64", base64.b64encode(b"\0\1").decode()),
        (answer(200, gzip.compress(b"[2]"), content_type="application/json", content_encoding="gzip"), "json", [2]),
        (b"HTTP/1.1 200 OK\r\nContent-Type: text/x\r\n\r\nto its end", "text", "to its end"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + answer(200, b"x", content_type="text/x"), "text", "x"),
    ],
)
async def test_a_body_is_kept_as_what_it_is(said: bytes, kind: str, body: object) -> None:
    async with serving(said) as server, toolbox():
        found = await http_request("GET", server.url())
    assert (found["kind"], found["body"]) == (kind, body)


async def test_an_answer_to_head_has_no_body() -> None:
    async with serving(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n") as server, toolbox():
        assert (await http_request("HEAD", server.url()))["kind"] == "empty"


@pytest.mark.parametrize(
    ("status", "error", "cause"),
    [
        (400, StepDeclined, None),
        (401, StepDeclined, None),
        (404, StepDeclined, None),
        (422, StepDeclined, None),
        (304, StepDeclined, None),
        (408, StepUnavailable, Cause.TIMEOUT),
        (429, StepUnavailable, None),
        (500, StepUnavailable, Cause.ERROR),
        (503, StepUnavailable, Cause.ERROR),
    ],
)
async def test_a_status_says_whether_another_try_may_help(status: int, error: type[Any], cause: Cause | None) -> None:
    async with serving(answer(status, b"why it failed")) as server, toolbox() as made:
        with pytest.raises(error) as caught:
            await http_request("GET", server.url("/secret-path?token=x"))
        assert caught.value.status == status and "secret-path" not in str(caught.value)
        assert "why it failed" not in str(caught.value)
        if error is StepUnavailable:
            assert caught.value.cause is cause
        label = "limited" if status == 429 else cause.value if cause else "invalid"
        assert made.count("seawall_step_failures_total", step="http_request", cause=label) == 1
        assert (await http_request("GET", server.url(), accept=[status]))["status"] == status


@pytest.mark.parametrize(
    ("said", "seconds"),
    [("7", 7.0), ("Thu, 01 Jan 1970 00:01:40 GMT", 40.0), ("Thu, 01 Jan 1970 00:00:40 GMT", 0.0), ("soon", 0.0),
     ("-5", 0.0), ("99999999999999", 86_400.0), ("1e9", 0.0)],
)  # fmt: skip
async def test_retry_after_is_a_floor_under_the_next_try(said: str, seconds: float) -> None:
    clock = ManualClock(wall_us=60_000_000)
    async with serving(answer(503, retry_after=said)) as server, toolbox(clock=clock):
        with pytest.raises(StepUnavailable) as caught:
            await http_request("GET", server.url())
    assert retry_after_s(caught.value) == pytest.approx(seconds)
    assert Retry().delay_s(1, caught.value, random.Random(1)) >= seconds


async def test_a_secret_is_sent_and_stands_in_no_result_error_or_log(caplog: pytest.LogCaptureFixture) -> None:
    hidden = 'sw-"7f3b/secret\\'

    async def echoes(request: Request, write: Write) -> None:
        own = request.headers["authorization"]
        body = json.dumps({"auth": own, "basic": request.headers["x-api-key"]}).encode()
        status = 500 if "fail" in request.line else 200
        await write(
            answer(status, body, content_type="application/json", set_cookie="sid=1", x_echo=own, location="/?t=" + own)
        )

    caplog.set_level(logging.DEBUG)
    async with serving(echoes) as server, toolbox(secrets={"ci": hidden}):
        headers = {"authorization": secret("ci", prefix="Bearer "), "x-api-key": "plain-key"}
        found = await http_request("GET", server.url(), headers=headers)
        assert server.requests[0].headers["authorization"] == f"Bearer {hidden}"
        with pytest.raises(StepUnavailable) as caught:
            await http_request("GET", server.url("/fail"), headers=headers)
    assert found["body"] == {"auth": "Bearer [secret]", "basic": "[secret]"}
    assert found["headers"]["set-cookie"] == "[secret]" and found["headers"]["x-echo"] == "Bearer [secret]"
    assert "7f3b" not in repr((found, caught.value, headers)) + caplog.text


async def test_a_url_and_values_of_a_body_may_be_secrets_too() -> None:
    async def echoes(request: Request, write: Write) -> None:
        said = json.dumps([request.line, json.loads(request.body)]).encode()
        await write(answer(404 if "gone" in request.line else 200, said, content_type="application/json"))

    async with serving(echoes) as server:
        secrets = {
            "hook": server.url("/services/T1/hidden-path"),
            "gone": server.url("/gone/hidden-path"),
            "key": "k-1234",
        }
        async with toolbox(secrets=secrets) as made:
            body = {"routing": secret("key"), "list": [1, {"deep": secret("key", prefix="Key ")}]}
            found = await http_request("POST", secret("hook"), json=body)
            assert json.loads(server.requests[0].body) == {"routing": "k-1234", "list": [1, {"deep": "Key k-1234"}]}
            assert found["body"][1] == {"routing": "[secret]", "list": [1, {"deep": "Key [secret]"}]}
            with pytest.raises(StepDeclined) as caught:
                await http_request("POST", secret("gone"), json=body)
            assert made.tools.meter.services() == ["http_request:hook", "http_request:gone"]
            assert "hidden-path" not in repr((found, caught.value)) and "k-1234" not in repr(found)
            deep: Any = 1
            for _ in range(99):
                deep = [deep]
            with pytest.raises(StepRefused, match="deeper"):
                await http_request("POST", secret("hook"), json=deep)


async def test_tls_and_host_go_by_name_and_the_certificate_is_checked(tmp_path: Path) -> None:
    authority = Authority()
    certificate, key = authority.put(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    named: list[str | None] = []
    context.sni_callback = lambda _, name, __: named.append(name)

    async def resolve(host: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    trusted = str(authority.put_own(tmp_path))
    async with serving(tls=context) as server:
        url = f"https://localhost:{server.port}/"
        async with toolbox(ca_file=trusted, resolve=resolve):
            assert (await http_request("GET", url))["status"] == 200
            assert named == ["localhost"] and server.requests[0].headers["host"] == f"localhost:{server.port}"
            assert (await http_request("GET", f"https://127.0.0.1:{server.port}/"))["status"] == 200
            with pytest.raises(StepUnavailable, match=r"no TLS with other\.example") as caught:
                await http_request("GET", f"https://other.example:{server.port}/")
            assert not caught.value.sent
        async with toolbox(resolve=resolve):
            with pytest.raises(StepUnavailable, match="no TLS"):
                await http_request("GET", url)
        assert len(server.requests) == 2


async def test_where_nobody_listens_nothing_was_sent() -> None:
    async with serving() as server:
        pass
    async with toolbox():
        with pytest.raises(StepUnavailable) as caught:
            await http_request("POST", server.url())
    assert caught.value.cause is Cause.REFUSED and not caught.value.sent


async def test_the_next_address_of_a_name_is_tried() -> None:
    async def resolve(host: str, port: int) -> list[str]:
        return ["127.0.0.9", "127.0.0.1"]

    async with serving() as server, toolbox(resolve=resolve):
        assert (await http_request("GET", server.url(host="two.example")))["status"] == 200


async def test_a_name_without_an_address_may_have_one_later() -> None:
    async with toolbox():
        with pytest.raises(StepUnavailable, match="can't be resolved") as caught:
            await http_request("GET", "http://nowhere.invalid/")
    assert not caught.value.sent


@pytest.mark.parametrize(
    "wrong",
    [
        {"timeout_s": 0},
        {"timeout_s": 60},
        {"json": object()},
        {"json": 1, "body": b"x"},
        {"body": b"x" * (5 << 20)},
        {"headers": {f"h{n}": "" for n in range(99)}},
    ],
    ids=lambda wrong: "-".join(wrong),
)
async def test_what_can_not_be_sent_is_refused(wrong: dict[str, Any]) -> None:
    async with toolbox():
        with pytest.raises(StepRefused):
            await http_request("POST", "http://127.0.0.1:9/", **wrong)


async def test_a_run_keeps_it_by_name_and_version_and_a_replay_sends_nothing() -> None:
    kept: dict[Any, Any] = {}
    async with serving(answer(200, b"1", content_type="text/plain")) as server, toolbox():
        first = await MemoryRun(kept).context().step(http_request, "GET", server.url())
        again = await MemoryRun(kept, attempt=2).context().step(http_request, "GET", server.url())
    assert first == again and server.connections == 1
    assert list(kept) == [("http_request@1", 0)]


async def test_a_declined_request_ends_its_run_and_an_unavailable_one_does_not() -> None:
    async with serving(answer(404)) as server, toolbox():
        with pytest.raises(StepFailed) as caught:
            await MemoryRun().context().step(http_request, "GET", server.url(), retry=Retry(attempts=3, first_s=0))
    assert not caught.value.retryable and server.connections == 1
    async with serving(answer(503)) as server, toolbox():
        with pytest.raises(StepFailed) as caught:
            await MemoryRun().context().step(http_request, "GET", server.url(), retry=Retry(attempts=3, first_s=0))
    assert caught.value.retryable and server.connections == 3


async def test_without_a_worker_it_says_where_it_runs() -> None:
    with pytest.raises(StepRefused, match="runs in a worker"):
        await http_request("GET", "http://127.0.0.1/")


def test_urls_of_settings_are_checked() -> None:
    assert Settings(github_url="https://ghe.example:8443/api/v3").github_url.endswith("v3")
