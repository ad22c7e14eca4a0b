"""The quicker HMAC is HMAC."""

from __future__ import annotations

import hmac

from hypothesis import given
from hypothesis import strategies as st

from seawall.kernel.signature.mac import digest


@given(st.binary(max_size=300), st.binary(max_size=3000), st.sampled_from(["sha1", "sha256", "sha512"]))
def test_it_is_what_the_standard_library_computes(key: bytes, message: bytes, algorithm: str) -> None:
    assert digest(key, message, algorithm) == hmac.digest(key, message, algorithm)


def test_a_message_leaves_no_trace_in_the_next_one() -> None:
    """The hashes are kept between calls: each call must work on copies."""
    assert digest(b"Jefe", b"one", "sha256") != digest(b"Jefe", b"two", "sha256")
    assert digest(b"Jefe", b"one", "sha256") == hmac.digest(b"Jefe", b"one", "sha256")


def test_rfc_4231_case_2() -> None:
    expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"

    assert digest(b"Jefe", b"what do ya want for nothing?", "sha256").hex() == expected
