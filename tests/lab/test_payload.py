from __future__ import annotations

import json

from seawall.lab.traffic.payload import body, is_odd


def test_a_body_can_be_made_again_from_seed_and_number() -> None:
    first = [body(7, n, type="lab.event", bytes_max=4096) for n in range(300)]
    assert first == [body(7, n, type="lab.event", bytes_max=4096) for n in range(300)]
    assert first != [body(8, n, type="lab.event", bytes_max=4096) for n in range(300)]


def test_sizes_reach_from_nothing_to_the_limit_and_never_beyond() -> None:
    sizes = [len(body(1, n, type="t", bytes_max=20_000)) for n in range(20_000)]
    assert min(sizes) == 0
    assert max(sizes) == 20_000
    assert sum(size < 1000 for size in sizes) > 10_000


def test_one_in_a_hundred_is_odd_and_the_others_are_json_of_their_type() -> None:
    odd = [n for n in range(10_000) if is_odd(3, n)]
    assert 60 < len(odd) < 150
    plain = (n for n in range(1000) if not is_odd(3, n))
    assert all(json.loads(body(3, n, type="lab.event", bytes_max=9999))["type"] == "lab.event" for n in plain)
