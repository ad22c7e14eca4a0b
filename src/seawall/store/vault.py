"""Seals secrets with AES-256-GCM under the data folder's key (DIR/key), so that a copy of the database tells none.

A sealed value is ``version (1) | nonce (12) | ciphertext and tag``. What it belongs to is bound into it and not stored:
a sealed secret that is copied to another source's row doesn't open there.
"""

from __future__ import annotations

import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from seawall.kernel.error import Corrupt

KEY_BYTES = 32
_VERSION = b"\x01"
_NONCE_BYTES = 12


class Vault:
    """Holds the key. Safe for at most 2^32 seals under one key (random nonces; NIST SP 800-38D §8.3): secrets change by
    hand, and the snapshot is sealed at most once a second."""

    def __init__(self, key: bytes) -> None:
        assert len(key) == KEY_BYTES, "DIR/key holds exactly 32 bytes"
        self._cipher = AESGCM(key)

    def seal(self, plain: bytes, *, belongs_to: bytes) -> bytes:
        """``plain``, readable only with the key and only as what ``belongs_to`` names."""
        nonce = os.urandom(_NONCE_BYTES)
        return _VERSION + nonce + self._cipher.encrypt(nonce, plain, belongs_to)

    def unseal(self, sealed: bytes, *, belongs_to: bytes) -> bytes:
        """What was sealed.

        Raises:
            Corrupt: Another key, another owner, or damaged bytes; which of them can't be told.
        """
        body = sealed[1 + _NONCE_BYTES :]
        if sealed[:1] != _VERSION or len(body) < 16:
            raise Corrupt("sealed value", "its format is unknown")
        try:
            return self._cipher.decrypt(sealed[1 : 1 + _NONCE_BYTES], body, belongs_to)
        except InvalidTag as error:
            raise Corrupt("sealed value", "DIR/key doesn't open it: another key, or damaged bytes") from error


def secret_owner(source_id: bytes, key_id: int) -> bytes:
    """What a source's secret is bound to."""
    return source_id + b"|" + str(key_id).encode()
