"""The page behind a link: it shows, it decides once, and it tells nothing to whoever has no link of ours."""

from __future__ import annotations

import asyncio
import logging
import re
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urlencode

import pytest

from seawall.kernel.approval import ANYBODY, Claim, Links
from seawall.kernel.approval import Settings as LinkSettings
from seawall.kernel.error import SeawallError, Unavailable, Uncertain
from seawall.kernel.seam.approval import Asked, Decision, State, Verdict, Via

from .rig import QUICK, Answered, Client, client, request, running, until

LINKS = Links(LinkSettings(), b"s" * 32, base=lambda: "http://h")
ASKED = Asked(
    question="deploy <b>1.4</b> & go?", people=(), state=State.OPEN,
    expires_at=datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC),
)  # fmt: skip
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
SETTINGS = replace(QUICK, approve_s=0.2)


class Table:
    """Requests, as a store would have them."""

    def __init__(self, asked: Asked | None = ASKED) -> None:
        self.asked = asked
        self.trouble: SeawallError | None = None
        self.trouble_of_decisions: SeawallError | None = None
        self.hangs = False
        self.decided: list[Decision] = []
        self.looks = 0

    async def find(self, claim: Claim, *, timeout_s: float) -> Asked | None:
        self.looks += 1
        if self.hangs:
            await asyncio.sleep(3600)
        if self.trouble is not None:
            raise self.trouble
        return self.asked

    async def decide(self, claim: Claim, decision: Decision, *, timeout_s: float) -> tuple[Asked | None, bool]:
        if self.trouble_of_decisions is not None:
            raise self.trouble_of_decisions
        if self.asked is None or self.asked.state is not State.OPEN:
            return self.asked, False
        self.decided.append(decision)
        self.asked = decided(decision, self.asked)
        return self.asked, True


def decided(decision: Decision, asked: Asked = ASKED) -> Asked:
    verdict = Verdict(approved=decision.approved, by=decision.by, via=decision.via, at_us=1_800_000_000_000_000)
    return replace(asked, state=State.APPROVED if decision.approved else State.DECLINED, verdict=verdict)


def target(person: int = ANYBODY) -> str:
    return LINKS.link(Claim(3, 99, b"n" * 16, 1_900_000_000_000_000, person), number=1).removeprefix("http://h")


async def ask(c: Client, method: str = "GET", at: str | None = None, **form: str) -> Answered:
    body = urlencode(form).encode() if method == "POST" else b""
    await c.send(request(at or target(), body, FORM, method=method))
    answer = await c.answer()
    assert answer is not None
    return answer


class Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


async def test_looking_decides_nothing_and_the_page_needs_no_script_and_no_third_party(tmp_path: Path) -> None:
    table = Table()
    async with running(tmp_path, settings=SETTINGS, approvals=table, links=LINKS) as rig, client(rig) as c:
        for _ in range(3):  # a scanner of mail, and one of chat
            answer = await ask(c)
            assert answer.status == 200
        assert table.decided == []
        text = answer.body.decode()
        assert "deploy &lt;b&gt;1.4&lt;/b&gt; &amp; go?" in text and "2030-01-02 03:04:05 UTC" in text
        names = [tag for tag, _ in Tags(text).tags]
        assert not {"script", "img", "link", "iframe", "a", "b"} & {*names}
        assert "//" not in text and re.search(r"\son\w+=", text) is None
        [first, *others] = [attrs for tag, attrs in Tags(text).tags if tag == "button"]
        assert "disabled" in first, "Enter in a text field takes the first button"
        assert [(b["name"], b["value"]) for b in others] == [("answer", "yes"), ("answer", "no")]
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "form-action 'self'" in policy and "unsafe" not in policy
        assert answer.headers["referrer-policy"] == "no-referrer" and answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-frame-options"] == "DENY" and "set-cookie" not in answer.headers
        head = await ask(c, "DELETE")
        assert (head.status, head.headers["allow"]) == (405, "GET, POST")


@pytest.mark.parametrize("answer", ["yes", "no"])
async def test_a_decision_counts_once_and_says_who_and_how_that_is_known(tmp_path: Path, answer: str) -> None:
    table = Table()
    async with running(tmp_path, settings=SETTINGS, approvals=table, links=LINKS) as rig, client(rig) as c:
        first = await ask(c, "POST", answer=answer, name=" Ana\u202e\n B ", comment="go\x00 <i>for</i> it")
        assert first.status == 200
        [decision] = table.decided
        assert (decision.by, decision.comment, decision.via) == ("Ana B", "go <i>for</i> it", Via.FORM)
        assert (decision.approved, decision.address) == (answer == "yes", "127.0.0.1")
        again = await ask(c, "POST", answer="yes", name="Ben")
        assert again.status == 409 and len(table.decided) == 1
        word = "Approved" if answer == "yes" else "Declined"
        said = f"{word} by Ana B (by the name that was given with the link) at 2027-"
        assert said in again.body.decode() and said in first.body.decode()
        assert (await ask(c)).status == 410
        assert rig.count("seawall_approval_pages_total", end=word.lower()) == 1


async def test_a_link_of_ones_own_says_who_it_is_whatever_name_is_given(tmp_path: Path) -> None:
    table = Table(replace(ASKED, people=("ana@x", "ben")))
    async with running(tmp_path, settings=SETTINGS, approvals=table, links=LINKS) as rig, client(rig) as c:
        page = (await ask(c, at=target(1))).body.decode()
        assert "This link is for ben." in page and 'name="name"' not in page
        await ask(c, "POST", at=target(1), answer="no", name="ana@x")
        [decision] = table.decided
        assert (decision.by, decision.via, decision.approved) == ("ben", Via.LINK, False)
        assert "Declined by ben (by their own link)" in (await ask(c, at=target(0))).body.decode()


async def test_two_at_once_are_told_the_same_and_one_of_them_that_he_was_second(tmp_path: Path) -> None:
    table, apart = Table(), asyncio.Barrier(2)
    find = table.find

    async def together(claim: Claim, *, timeout_s: float) -> Asked | None:
        found = await find(claim, timeout_s=timeout_s)
        await apart.wait()  # both have seen it open
        return found

    table.find = together  # type: ignore[method-assign]
    async with (
        running(tmp_path, settings=SETTINGS, approvals=table, links=LINKS) as rig,
        client(rig) as a,
        client(rig) as b,
    ):
        answers = await asyncio.gather(
            ask(a, "POST", answer="yes", name="Ana"), ask(b, "POST", answer="no", name="Ben")
        )
    assert sorted(answer.status for answer in answers) == [200, 409] and len(table.decided) == 1
    for answer in answers:
        assert f"by {table.decided[0].by} (" in answer.body.decode()


async def test_forged_altered_and_old_links_get_one_answer_and_the_store_is_not_asked(tmp_path: Path) -> None:
    table, good = Table(), target()
    wrong = [
        good[:-1], f"{good}A", f"{good[:-1]}{'A' if good[-1] != 'A' else 'B'}", good[:9] + "B" + good[10:], "/approve/",
        "/approve/%2e%2e/", good.replace("/approve/", "/approve//"), f"/approve/{'A' * 100}",
        Links(LinkSettings(), b"t" * 32, base=lambda: "").link(Claim(3, 99, b"n" * 16, 1, ANYBODY), number=1),
        LINKS.link(Claim(3, 99, b"n" * 16, 1_900_000_000_000_000, ANYBODY), number=0).removeprefix("http://h"),
    ]  # fmt: skip
    strict = Links(LinkSettings(keys_kept=0), b"s" * 32, base=lambda: "http://h")
    async with running(tmp_path, settings=SETTINGS, approvals=table, links=strict) as rig, client(rig) as c:
        answers = [await ask(c, method, at=at, answer="yes", name="x") for at in wrong for method in ("GET", "POST")]
        assert {(a.status, a.body) for a in answers} == {(404, answers[0].body)}
        assert table.looks == 0 and table.decided == []
        assert (await ask(c)).status == 200
    async with running(tmp_path, settings=SETTINGS) as rig, client(rig) as c:
        assert (await ask(c)).status == 404, "a collector without links has none"


async def test_a_link_that_has_ended_says_why(tmp_path: Path) -> None:
    table = Table()
    async with running(tmp_path, settings=SETTINGS, approvals=table, links=LINKS) as rig, client(rig) as c:
        for asked, said in (
            (None, "isn&#x27;t kept any more"),
            (replace(ASKED, state=State.EXPIRED), "Nobody decided by 2030-01-02 03:04:05 UTC."),
            (replace(ASKED, state=State.ENDED, run_status="cancelled"), "the run that asked was cancelled."),
            (replace(ASKED, state=State.ENDED, run_status="failed"), "the run that asked has ended."),
        ):
            table.asked = asked
            for method in ("GET", "POST"):
                answer = await ask(c, method, answer="yes", name="Ana")
                assert answer.status == 410 and said in answer.body.decode()
        assert table.decided == []


async def test_what_is_no_decision_is_shown_again_with_what_is_wrong(tmp_path: Path) -> None:
    table = Table()
    async with running(tmp_path, settings=SETTINGS, approvals=table, links=LINKS) as rig, client(rig) as c:
        for form in (
            {"name": "Ana"}, {"answer": "maybe", "name": "Ana"}, {"answer": "yes"},
            {"answer": "yes", "name": " \n\u200e "}, {"answer": "yes", "name": "x" * 101},
            {"answer": "yes", "name": "x", "comment": "x" * 1001},
        ):  # fmt: skip
            answer = await ask(c, "POST", **form)
            assert answer.status == 422 and b"<strong>" in answer.body and table.decided == []


async def test_what_is_no_form_of_ours_decides_nothing(tmp_path: Path) -> None:
    table = Table()
    async with running(tmp_path, settings=SETTINGS, approvals=table, links=LINKS) as rig, client(rig) as c:
        for body, headers in (
            (b"answer=yes&answer=no&name=x", FORM), (b"answer=yes&name=a&name=b", FORM), (b"\xff=\x00", FORM),
            (b"", FORM),
            (b"&".join([b"answer=yes"] * 20), FORM), (b'{"answer":"yes"}', {"Content-Type": "application/json"}),
            (b"answer=yes&name=x", {}),
        ):  # fmt: skip
            await c.send(request(target(), body, headers))
            answer = await c.answer()
            assert answer is not None and answer.status == 422 and table.decided == []
        await c.send(request(target(), b"x" * 20_000, FORM))
        answer = await c.answer()
        assert answer is not None and answer.status == 413


async def test_without_the_store_nothing_is_decided_and_who_can_not_know_says_so(tmp_path: Path) -> None:
    table = Table()
    async with running(tmp_path, settings=SETTINGS, approvals=table, links=LINKS) as rig, client(rig) as c:
        for trouble in ("trouble", "trouble_of_decisions"):
            setattr(table, trouble, Unavailable("PostgreSQL", "it is away"))
            answer = await ask(c, "POST", answer="yes", name="Ana")
            assert answer.status == 503 and int(answer.headers["retry-after"]) >= 1
            assert b"nothing was decided" in answer.body and b"PostgreSQL" not in answer.body
            setattr(table, trouble, None)
        table.trouble_of_decisions = Uncertain("the answer was lost")
        answer = await ask(c, "POST", answer="yes", name="Ana")
        assert answer.status == 503 and b"open the link again" in answer.body
        table.trouble_of_decisions, table.hangs = None, True
        answer = await ask(c)
        assert answer.status == 503 and table.decided == []
        table.hangs = False
        assert (await ask(c)).status == 200


async def test_who_guesses_is_slowed_down_and_pages_at_once_are_bounded(tmp_path: Path) -> None:
    settings = replace(SETTINGS, look_up_rate_per_s=0.01, look_up_burst=3, look_ups_max=1, approve_s=5.0)
    table = Table()
    table.hangs = True
    async with (
        running(tmp_path, settings=settings, approvals=table, links=LINKS) as rig,
        client(rig) as a,
        client(rig) as b,
    ):
        await a.send(request(target(), method="GET"))
        await until(lambda: table.looks == 1)
        assert (await ask(b)).status == 503
        assert (await ask(b, at="/approve/x")).status == 404
        assert [(await ask(b, at=at)).status for at in ("/approve/x", target())] == [429, 429]
        await rig.collector.stop(1.0)
        answer = await a.answer()
        assert answer is not None and answer.status == 503, "who waits while it stops is answered"


async def test_a_forwarders_word_is_the_address_and_anybody_elses_is_not(tmp_path: Path) -> None:
    for forwarders, address in ((("127.0.0.0/8",), "203.0.113.9"), ((), "127.0.0.1")):
        table = Table()
        settings = replace(SETTINGS, forwarders=forwarders)
        async with running(tmp_path, settings=settings, approvals=table, links=LINKS) as rig, client(rig) as c:
            await c.send(request(target(), b"answer=yes&name=x", FORM | {"X-Forwarded-For": "203.0.113.9"}))
            assert await c.answer() is not None
            assert table.decided[0].address == address


async def test_no_log_line_has_a_token(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    table = Table()
    async with running(tmp_path, settings=SETTINGS, approvals=table, links=LINKS) as rig, client(rig) as c:
        await ask(c, "POST", answer="yes", name="Ana")
        table.asked, table.find = ASKED, None  # type: ignore[assignment,method-assign]
        assert (await ask(c)).status == 503, "a bug of ours"
    texts = " ".join(f"{record.getMessage()} {record.__dict__} {record.exc_text}" for record in caplog.records)
    assert "approval" in texts and target().rpartition("/")[2][20:] not in texts
