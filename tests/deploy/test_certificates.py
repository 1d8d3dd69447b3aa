"""Certificates as `cryptography` reads them, and as clients take or refuse them."""

import socket
import ssl
import threading
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_private_key, load_ssh_public_key
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import PolicyBuilder, Store
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.provisional import domains

from deploy.authority import Authority
from deploy.errors import DeployError
from deploy.hosts import Host, parse_host
from deploy.node_keys import new_key_pair
from deploy.settings import Deployment
from tests.deploy.conftest import DEPLOYMENT


def server_certificate(folder: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate((folder / "superlink" / "server.crt").read_bytes())


def test_the_server_certificate_names_every_address_and_loopback(written: Path) -> None:
    names = server_certificate(written).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["fl.example.org", "fl", "localhost"]
    addresses = [ip_address(text) for text in ("10.0.0.5", "127.0.0.1", "::1")]
    assert names.get_values_for_type(x509.IPAddress) == addresses


def test_the_server_certificate_is_for_servers_and_lasts_as_long_as_asked(written: Path) -> None:
    found = server_certificate(written)
    usage = found.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.SERVER_AUTH]
    assert not found.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    left = found.not_valid_after_utc - datetime.now(UTC)
    assert timedelta(days=729) < left <= timedelta(days=730)
    assert found.not_valid_before_utc < datetime.now(UTC)


def test_the_authority_may_sign_servers_and_nothing_below(written: Path) -> None:
    found = x509.load_pem_x509_certificate((written / "authority" / "ca.crt").read_bytes())
    basic = found.extensions.get_extension_for_class(x509.BasicConstraints)
    assert basic.critical
    assert (basic.value.ca, basic.value.path_length) == (True, 0)
    usage = found.extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.key_cert_sign
    assert not usage.digital_signature
    assert timedelta(days=3650) < found.not_valid_after_utc - datetime.now(UTC)


def handshake(server: Path, authority: Path, host: str) -> None:
    """A TLS connection over loopback, as strict as Python 3.13's default; raises what the client raises."""
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(server / "server.crt", server / "server.key")
    asking = ssl.create_default_context(cafile=str(authority))
    asking.verify_flags |= ssl.VERIFY_X509_STRICT
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                try:
                    with serving.wrap_socket(connection, server_side=True) as secure:
                        secure.recv(1)
                except OSError:
                    pass  # the client did not trust it and hung up

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            with (
                socket.create_connection(listener.getsockname(), timeout=20) as plain,
                asking.wrap_socket(plain, server_hostname=host),
            ):
                pass
        finally:
            thread.join()


@pytest.mark.parametrize("host", ["fl.example.org", "fl", "localhost", "127.0.0.1", "10.0.0.5", "::1"])
def test_a_client_with_the_authority_trusts_the_server_under_each_name(written: Path, host: str) -> None:
    handshake(written / "superlink", written / "node-1" / "ca.crt", host)


def test_another_name_is_refused(written: Path) -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        handshake(written / "superlink", written / "node-1" / "ca.crt", "other.example.org")


def test_a_client_with_another_authority_refuses_the_server(written: Path, tmp_path: Path) -> None:
    other = tmp_path / "ca.crt"
    other.write_bytes(Authority.create("sites").files()["ca.crt"])
    with pytest.raises(ssl.SSLCertVerificationError, match="certificate verify failed"):
        handshake(written / "superlink", other, "localhost")


ADDRESSES = st.ip_addresses().map(str)


@given(host=domains() | ADDRESSES)
def test_whatever_host_is_taken_its_certificate_verifies(host: str) -> None:
    try:
        parsed = parse_host("--superlink-host", host)
    except DeployError:
        assume(False)
    authority = Authority.create("sites")
    hosts = Deployment("sites", parsed, 8000, (), ("node-1",), "1.41.0").server_hosts
    certificate = x509.load_pem_x509_certificate(authority.sign_server("sites", hosts, 730)["server.crt"])
    subject: x509.GeneralName = x509.DNSName(parsed) if isinstance(parsed, str) else x509.IPAddress(parsed)
    assert isinstance(subject, x509.DNSName | x509.IPAddress)
    PolicyBuilder().store(Store([authority.certificate])).build_server_verifier(subject).verify(certificate, [])


@given(address=st.ip_addresses())
def test_addresses_come_back_as_they_are(address: Host) -> None:
    try:
        assert parse_host("--also", str(address)) == address
    except DeployError:
        assert not isinstance(address, str)
        assert address.is_unspecified or address.is_multicast


@pytest.mark.parametrize(
    "bad", ["", "https://fl.example.org", "fl.example.org:8000", "a..b", "-a", "10.0.0.300", "*.example.org", "a b",
            "a_b", "bücher.example", "0.0.0.0", "::", "a" * 64, "x;rm", "fe80::1%eth0"],
)  # fmt: skip
def test_what_is_not_a_host_is_refused(bad: str) -> None:
    with pytest.raises(DeployError, match=r"--superlink-host is .* without scheme and port"):
        parse_host("--superlink-host", bad)


@pytest.mark.parametrize("days", [0, 3653, 100000])
def test_a_certificate_must_not_outlive_its_authority(days: int) -> None:
    with pytest.raises(DeployError, match=f"--days is {days}; it must be from 1 to 3652"):
        Authority.create("sites").sign_server("sites", DEPLOYMENT.server_hosts, days)


def test_node_keys_are_what_flower_reads() -> None:
    private, public = new_key_pair("node-1")
    key = load_ssh_private_key(private, None)
    known = load_ssh_public_key(public)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert isinstance(known, ec.EllipticCurvePublicKey)
    assert key.public_key() == known
    assert key.curve.name == "secp384r1"
    assert public.endswith(b" node-1\n")
