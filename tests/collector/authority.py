"""Certificates for tests: an authority, and what it signs."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID


class Authority:
    """Signs certificates for localhost."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "an authority")])
        self._own = self._signed(self._name, self._key.public_key(), days=10, authority=True)

    def put(self, folder: Path, *, days: float = 90.0, name: str = "first") -> tuple[Path, Path]:
        """Write a new certificate and its key; where."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate, file = folder / "cert.pem", folder / "key.pem"
        certificate.write_bytes(self._signed(subject, key.public_key(), days=days).public_bytes(Encoding.PEM))
        file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return certificate, file

    def put_own(self, folder: Path) -> Path:
        """Write what others need to trust it; where."""
        file = folder / "authority.pem"
        file.write_bytes(self._own.public_bytes(Encoding.PEM))
        return file

    def client(self) -> ssl.SSLContext:
        """A context that trusts this authority alone."""
        context = ssl.create_default_context(cadata=self._own.public_bytes(Encoding.PEM).decode())
        context.set_alpn_protocols(["http/1.1"])
        return context

    def _signed(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey, *, days: float, authority: bool = False
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        return (
            x509.CertificateBuilder()
            .subject_name(subject).issuer_name(self._name).public_key(key).serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=400)).not_valid_after(now + datetime.timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .sign(self._key, hashes.SHA256())
        )  # fmt: skip
