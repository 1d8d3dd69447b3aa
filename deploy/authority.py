"""A private certificate authority, and the server certificates that it signs.

Elliptic curve P-256 throughout. Whoever has the authority's key can pose as the server, so it stays offline; whoever
has its certificate can only check.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from deploy.errors import DeployError
from deploy.hosts import Host

AUTHORITY_DAYS = 3653  # ten years
CLOCK_SKEW = timedelta(days=1)  # a machine whose clock is slow must not refuse a new certificate


class Authority:
    """A signing key and its self-signed certificate."""

    def __init__(self, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
        self._key = key
        self.certificate = certificate

    @classmethod
    def create(cls, name: str) -> "Authority":
        """A new one, valid for ten years; it may sign servers but no further authorities."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _subject(f"{name} authority")
        builder = _builder(subject, subject, key.public_key(), AUTHORITY_DAYS)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        builder = builder.add_extension(_key_usage(key_cert_sign=True, crl_sign=True), critical=True)
        return cls(key, builder.sign(key, hashes.SHA256()))

    @classmethod
    def load(cls, folder: Path) -> "Authority":
        """Read what `files` put into a folder.

        Raises:
            DeployError: A file is missing or unreadable, or key and certificate do not belong together.
        """
        try:
            key = load_pem_private_key((folder / "ca.key").read_bytes(), password=None)
            certificate = x509.load_pem_x509_certificate((folder / "ca.crt").read_bytes())
        except OSError as error:
            raise DeployError(
                f"{error.filename} cannot be read ({error.strerror}); restore the authority's folder from where it"
                " is kept."
            ) from None
        except ValueError:
            raise DeployError(f"{folder} must hold ca.key and ca.crt as PEM; one of them is damaged.") from None
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
            raise DeployError(f"{folder}: ca.key is not the key of ca.crt; restore the right pair.")
        return cls(key, certificate)

    def files(self) -> dict[str, bytes]:
        return {"ca.key": _pem(self._key), "ca.crt": self.certificate.public_bytes(Encoding.PEM)}

    def sign_server(self, name: str, hosts: Sequence[Host], days: int) -> dict[str, bytes]:
        """A new key and certificate for a server, as ``server.key`` and ``server.crt``.

        Args:
            name: Shown as the certificate's common name; clients check only `hosts`.
            hosts: Every name and address under which clients may reach it.
            days: How long it is valid.

        Raises:
            DeployError: It would outlive the authority.
        """
        left = (self.certificate.not_valid_after_utc - datetime.now(UTC)).days
        if not 1 <= days <= left:
            raise DeployError(f"--days is {days}; it must be from 1 to {left}, the days that the authority has left.")
        key = ec.generate_private_key(ec.SECP256R1())
        names: list[x509.GeneralName] = [
            x509.DNSName(host) if isinstance(host, str) else x509.IPAddress(host) for host in dict.fromkeys(hosts)
        ]
        issuer = self.certificate.public_key()
        assert isinstance(issuer, ec.EllipticCurvePublicKey)
        builder = _builder(_subject(f"{name} server"), self.certificate.subject, key.public_key(), days)
        for extension, critical in (
            (x509.SubjectAlternativeName(names), False),
            (x509.BasicConstraints(ca=False, path_length=None), True),
            (_key_usage(digital_signature=True), True),
            (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False),
            (x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer), False),
        ):
            builder = builder.add_extension(extension, critical=critical)
        certificate = builder.sign(self._key, hashes.SHA256())
        return {"server.key": _pem(key), "server.crt": certificate.public_bytes(Encoding.PEM)}


def _builder(
    subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder(subject_name=subject, issuer_name=issuer, public_key=public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )


def _subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _key_usage(**on: bool) -> x509.KeyUsage:
    off = dict.fromkeys(
        (
            "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
            "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
        ),
        False,
    )  # fmt: skip
    return x509.KeyUsage(**(off | on))


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
