"""Certificates carry exactly the names given, one purpose, and nothing of what the request asks for."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import PolicyBuilder, Store

from folkmoot_core import certificates
from folkmoot_core.certificates import Moment
from folkmoot_core.errors import Invalid

NOW = datetime(2026, 6, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def authority():
    return certificates.make_authority(ec.generate_private_key(ec.SECP256R1()), "Test CA", Moment(NOW, 1))


def request(key, *, names=()):
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(n) for n in names]), critical=False)
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(key, algorithm).public_bytes(serialization.Encoding.PEM).decode()


def sign(authority, csr, names=("core.ns.svc",), now=NOW):
    return certificates.sign_serving(authority, certificates.request_key(csr), names, Moment(now, 7))


def test_a_serving_certificate_verifies_for_its_names_alone(authority):
    key = ec.generate_private_key(ec.SECP256R1())
    leaf = sign(authority, request(key, names=["evil.svc", "core.other.svc"]), ("core", "core.ns.svc", "127.0.0.1"))
    alternative = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert alternative.get_values_for_type(x509.DNSName) == ["core", "core.ns.svc"]
    assert alternative.get_values_for_type(x509.IPAddress) == [ipaddress.ip_address("127.0.0.1")]
    policy = PolicyBuilder().store(Store([authority.certificate])).time(NOW)
    policy.build_server_verifier(x509.DNSName("core.ns.svc")).verify(leaf, [])
    with pytest.raises(x509.verification.VerificationError):
        policy.build_server_verifier(x509.DNSName("evil.svc")).verify(leaf, [])
    with pytest.raises(x509.verification.VerificationError):  # a serving certificate is no client's
        policy.build_client_verifier().verify(leaf, [])


def test_the_operators_client_certificate_serves_nothing(authority):
    key = ec.generate_private_key(ec.SECP256R1())
    leaf = certificates.sign_client(authority, key.public_key(), "folkmoot-operator", Moment(NOW, 8))
    usage = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    policy = PolicyBuilder().store(Store([authority.certificate])).time(NOW)
    with pytest.raises(x509.verification.VerificationError):
        policy.build_server_verifier(x509.DNSName("folkmoot-operator")).verify(leaf, [])


def test_lifetimes(authority):
    key = ec.generate_private_key(ec.SECP256R1())
    leaf = sign(authority, request(key))
    assert leaf.not_valid_after_utc - NOW == timedelta(hours=24)
    assert leaf.not_valid_before_utc < NOW
    end = authority.certificate.not_valid_after_utc
    assert sign(authority, request(key), now=end - timedelta(hours=1)).not_valid_after_utc == end
    with pytest.raises(Invalid, match="expired"):
        sign(authority, request(key), now=end + timedelta(seconds=1))


@pytest.mark.parametrize(
    "key", [ec.generate_private_key(ec.SECP384R1()), ed25519.Ed25519PrivateKey.generate(), rsa.generate_private_key(65537, 2048)]
)
def test_strong_keys_are_taken(authority, key):
    assert sign(authority, request(key)).public_key() == key.public_key()


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP256K1()),
        rsa.generate_private_key(65537, 1024),  # noqa: S505 - weak on purpose
        dsa.generate_private_key(2048),
    ],
)
def test_weak_and_unknown_keys_are_refused(key):
    with pytest.raises(Invalid, match="key"):
        certificates.request_key(request(key))


def test_a_request_not_signed_by_its_own_key_is_refused():
    der = bytearray(
        x509.load_pem_x509_csr(request(ec.generate_private_key(ec.SECP256R1())).encode()).public_bytes(serialization.Encoding.DER)
    )
    der[-1] ^= 1
    forged = x509.load_der_x509_csr(bytes(der)).public_bytes(serialization.Encoding.PEM).decode()
    with pytest.raises(Invalid):
        certificates.request_key(forged)


@pytest.mark.parametrize(
    "text", ["", "x", "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----", "x" * 20000, "\u00e9"]
)
def test_rubbish_is_refused(text):
    with pytest.raises(Invalid):
        certificates.request_key(text)


def test_no_names_no_certificate(authority):
    with pytest.raises(Invalid, match="name"):
        sign(authority, request(ec.generate_private_key(ec.SECP256R1())), ())


def test_an_authority_survives_storage_and_a_wrong_pair_does_not(authority):
    pem, key = authority.pem().encode(), certificates.key_pem(authority.key)
    assert certificates.read_authority(pem, key).certificate == authority.certificate
    other = certificates.key_pem(ec.generate_private_key(ec.SECP256R1()))
    for pair in ((pem, other), (b"x", key), (pem, b"x")):
        with pytest.raises(Invalid):
            certificates.read_authority(*pair)
