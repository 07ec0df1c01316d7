"""The installation's certificate authority as arithmetic: make a CA, sign a request for given names. wiring.md §2.

Pure: keys, time and serial numbers come in. The operator's endpoint and the local stand-in of `folkmoot dev` call it. Obligations
when a request is signed, numbered here and at the steps: 1. the request is signed by the key that it carries; 2. the key is
strong; 3. names come from the caller's argument alone, never from the request; 4. the purpose is one of serverAuth or clientAuth,
never both, so that a serving certificate cannot pass for the operator's. The caller still owes: who may have which names.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from folkmoot_core.errors import Invalid

CA_LIFETIME: Final = timedelta(days=3650)
LEAF_LIFETIME: Final = timedelta(hours=24)
BACKDATE: Final = timedelta(minutes=5)  # clocks of nodes differ
MAX_CSR: Final = 16 * 1024
PublicKey = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey


@dataclass(frozen=True)
class Authority:
    """A CA certificate and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    def pem(self) -> str:
        """The certificate, for trust bundles."""
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()


@dataclass(frozen=True)
class Moment:
    """What a signature needs and a pure function cannot make: the time (UTC, aware) and a fresh random serial number."""

    now: datetime
    serial: int


def make_authority(key: ec.EllipticCurvePrivateKey, name: str, moment: Moment) -> Authority:
    """A self-signed CA that signs leaves alone."""
    subject = _name(name)
    usage = _usage(certificates=True)
    certificate = (
        _builder(subject, subject, key.public_key(), moment, CA_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .sign(key, hashes.SHA256())
    )
    return Authority(certificate, key)


def read_authority(certificate: bytes, key: bytes) -> Authority:
    """An Authority from PEM; raises `Invalid` if the two do not belong together."""
    try:
        leaf = x509.load_pem_x509_certificate(certificate)
        private = serialization.load_pem_private_key(key, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise Invalid(f"the CA's certificate or key is not readable PEM ({type(error).__name__})") from error
    if not isinstance(private, ec.EllipticCurvePrivateKey) or leaf.public_key() != private.public_key():
        raise Invalid("the CA's key is not the EC key of its certificate")
    return Authority(leaf, private)


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """A private key as unencrypted PKCS #8."""
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def request_key(csr_pem: str) -> PublicKey:
    """The public key of a certificate request that proves its possession; raises `Invalid`."""
    if len(csr_pem) > MAX_CSR:
        raise Invalid(f"certificate request is longer than {MAX_CSR} characters")
    try:
        csr = x509.load_pem_x509_csr(csr_pem.encode())
        valid = csr.is_signature_valid  # 1
        key = csr.public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm, InvalidSignature) as error:
        raise Invalid(f"certificate request is not readable PEM PKCS #10 ({type(error).__name__})") from error
    if not valid:
        raise Invalid("certificate request is not signed by the key that it carries")
    return strong(key)


def strong(key: object) -> PublicKey:
    """The key, if it is EC P-256 or P-384, Ed25519 or RSA of at least 2048 bits; raises `Invalid` for any other."""
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1 | ec.SECP384R1):  # 2
        return key
    if isinstance(key, ed25519.Ed25519PublicKey) or (isinstance(key, rsa.RSAPublicKey) and key.key_size >= 2048):
        return key
    raise Invalid("certificate request carries a weak or unknown key; expected EC P-256 or P-384, Ed25519 or RSA from 2048 bits")


def sign_serving(authority: Authority, key: PublicKey, names: Sequence[str], moment: Moment) -> x509.Certificate:
    """A serverAuth certificate for exactly these DNS names or IP addresses, 24 hours long."""
    if not names:
        raise Invalid("a serving certificate needs at least one name")
    alternatives = x509.SubjectAlternativeName([_alternative(name) for name in names])  # 3
    builder = _leaf(authority, _name(names[0]), key, moment, ExtendedKeyUsageOID.SERVER_AUTH)
    return builder.add_extension(alternatives, critical=False).sign(authority.key, hashes.SHA256())


def sign_client(authority: Authority, key: PublicKey, name: str, moment: Moment) -> x509.Certificate:
    """A clientAuth certificate for the operator itself, 24 hours long."""
    builder = _leaf(authority, _name(name), key, moment, ExtendedKeyUsageOID.CLIENT_AUTH)
    return builder.sign(authority.key, hashes.SHA256())


def pem(certificate: x509.Certificate) -> str:
    """A certificate as PEM text."""
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _leaf(
    authority: Authority, subject: x509.Name, key: PublicKey, moment: Moment, purpose: x509.ObjectIdentifier
) -> x509.CertificateBuilder:
    issuer = authority.certificate
    lifetime = min(LEAF_LIFETIME, issuer.not_valid_after_utc - moment.now)
    if lifetime <= timedelta(0):
        raise Invalid("the CA's certificate has expired; remove its Secret and restart the operator to make a new one")
    return (
        _builder(subject, issuer.subject, key, moment, lifetime)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)  # 4
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), critical=False)
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: PublicKey, moment: Moment, lifetime: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(moment.serial)
        .not_valid_before(moment.now - BACKDATE)
        .not_valid_after(moment.now + lifetime)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(*, certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not certificates, key_cert_sign=certificates, crl_sign=certificates, content_commitment=False,
        key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name[:64])])


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
