"""Links of approvals: ours open, nothing else does, and a key that is let go takes its links with it."""

from __future__ import annotations

import base64
import random
from dataclasses import replace
from urllib.parse import urlsplit

import pytest

from seawall.kernel.approval import ANYBODY, PATH, Claim, Links, Settings
from seawall.kernel.error import Misconfigured

CLAIM = Claim(7, (20_000 << 44) | 9, bytes(range(16)), 1_800_000_000_000_000, ANYBODY)
FIRST = Settings(url="https://hooks.test/seawall/")


def links(settings: Settings = FIRST, secret: bytes = b"k" * 32) -> Links:
    return Links(settings, secret, base=lambda: "http://127.0.0.1:8080")


def token(made: Links, claim: Claim = CLAIM, number: int = 1) -> str:
    return made.link(claim, number=number).rpartition("/")[2]


def test_a_link_opens_as_what_it_was_made_for_and_is_always_the_same() -> None:
    made = links()
    assert made.link(CLAIM, number=1) == links().link(CLAIM, number=1)
    assert made.link(CLAIM, number=1).startswith(f"https://hooks.test/seawall{PATH}")
    assert links(Settings()).link(CLAIM, number=1).startswith(f"http://127.0.0.1:8080{PATH}")
    assert urlsplit(made.link(CLAIM, number=1)).path.isascii() and len(token(made)) == 100
    assert made.opened(token(made)) == CLAIM


def test_no_bit_can_be_turned_and_no_other_key_opens_it() -> None:
    made = links()
    raw = base64.urlsafe_b64decode(token(made))
    for bit in range(8 * len(raw)):
        other = bytearray(raw)
        other[bit // 8] ^= 1 << bit % 8
        assert made.opened(base64.urlsafe_b64encode(other).decode()) is None, bit
    assert links(secret=b"K" * 32).opened(token(made)) is None


@pytest.mark.parametrize("length", [0, 1, 99, 101, 100_000])
def test_what_is_no_token_never_raises(length: int) -> None:
    rng = random.Random(length)
    for text in ("A" * length, "".join(chr(rng.randrange(0x250)) for _ in range(length)), token(links()) + "\n"):
        assert links().opened(text) is None


def test_links_of_the_keys_before_open_as_long_as_they_are_kept() -> None:
    old = token(links())
    for key, kept, opens in ((1, 0, True), (2, 1, True), (2, 0, False), (3, 1, False), (3, 2, True)):
        made = links(replace(FIRST, key=key, keys_kept=kept))
        assert (made.opened(old) == CLAIM) is opens, (key, kept)
        assert made.opened(token(made, number=made.number)) == CLAIM
    newer = token(links(replace(FIRST, key=5)), number=5)
    assert links().opened(newer) == CLAIM, "a process that was started before the key was raised takes it"
    assert newer != old


@pytest.mark.parametrize(
    "url", ["hooks.test", "ftp://h", "https://", "https://h/?a", "https://h#x", "https://u@h", "https://h:x"]
)
def test_an_address_that_can_not_be_one_is_refused_at_the_start(url: str) -> None:
    with pytest.raises(Misconfigured, match=r"approval\.url"):
        Settings(url=url)
