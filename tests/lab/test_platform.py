"""The lab's own source is made whatever is killed in the middle of it, and half-made ones don't stay."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from seawall.kernel.error import Unavailable
from seawall.lab.platform import Place, Platform

from .platform_server import FakePlatform


@pytest.fixture
def fake() -> Iterator[FakePlatform]:
    with FakePlatform() as made:
        yield made


def _own(platform: Platform) -> str:
    return platform.own_source("lab-x", kind="none", secret="").name


def test_a_source_whose_answer_was_cut_off_is_made_again_and_the_first_removed(fake: FakePlatform) -> None:
    fake.half_made = ["cut", "missing"]
    with Platform(fake.find, patience_s=5.0) as platform:
        assert _own(platform) == "lab-x-2"
    assert fake.removed == ["lab-x", "lab-x-1"]


def test_a_platform_that_starts_late_is_waited_for(fake: FakePlatform) -> None:
    late = [Unavailable("the platform", "starts"), Unavailable("the platform", "starts")]

    def find() -> Place:
        if late:
            raise late.pop()
        return fake.find()

    with Platform(find, patience_s=5.0) as platform:
        assert _own(platform) == "lab-x"


def test_a_source_that_is_never_live_is_given_up_in_time(fake: FakePlatform) -> None:
    fake.half_made = ["missing"] * 1000
    with Platform(fake.find, patience_s=0.5) as platform, pytest.raises(Unavailable, match="live"):
        _own(platform)


def test_the_address_of_a_platform_that_is_away_is_where_it_was(fake: FakePlatform) -> None:
    here = True

    def find() -> Place:
        if here:
            return fake.find()
        raise Unavailable("the platform", "away")

    with Platform(find, patience_s=5.0) as platform:
        source = platform.own_source("lab-x", kind="none", secret="")
        known = platform.listen(source)
        here = False
        assert platform.listen(source) == known
