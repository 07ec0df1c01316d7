"""Timestamp authorities for tests, honest and other: the generator of the bad tokens of ledger.md §3.3 and §3.4.

Honest tokens come from `tsa` itself; what an honest authority refuses to make is made here, from the
same parts: certificates with a wrong purpose or lifetime, foreign roots embedded, sets out of order, changed status.
"""

from __future__ import annotations

import base64
import functools
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from asn1crypto import cms, tsp
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID as Usage

from folkmoot_core.ledger import anchor, timestamp, tsa
from folkmoot_core.ledger.anchor import Stamp
from folkmoot_core.ledger.timestamp_token import response_type

NOW = datetime(2026, 11, 27, 12, 0, 0, tzinfo=UTC)
DATA = b"folkmoot/9f\n3\nHcD64MdWyiA52e3WEleBZUCWO...\n\n\xe2\x80\x94 folkmoot/9f c2ln\n"
NONCE = 0xF00DFACE12345678


@dataclass(frozen=True)
class Forger:
    """What `tsa.Signer` holds, without its scruples."""

    key: Any
    chain: tuple[x509.Certificate, ...]
    policy: str = tsa.POLICY
    accuracy: int = 1
    whole_chain: bool = False


@dataclass(frozen=True)
class Leaf:
    """How a leaf is to be made: the defaults are right."""

    usages: tuple[Any, ...] = (Usage.TIME_STAMPING,)
    critical: bool = True
    start: datetime = NOW - timedelta(days=1)
    end: datetime = NOW + timedelta(days=365)
    serial: int = 77
    issuer: str = "Honest root"
    subject: str = "Honest authority"


@functools.lru_cache
def key(number: int) -> ec.EllipticCurvePrivateKey:
    """The same key for the same number, within one run."""
    return ec.generate_private_key(ec.SECP256R1())


@functools.lru_cache
def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


@functools.lru_cache
def certificate_authority(number: int, name: str, issuer: int | None = None, issuer_name: str = "") -> x509.Certificate:
    """A CA with `key(number)`, below `key(issuer)` where one is given."""
    signing, by = (key(number), name) if issuer is None else (key(issuer), issuer_name)
    return (
        _builder(by, name, key(number).public_key(), 1000 + number, NOW - timedelta(days=30), NOW + timedelta(days=3650))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(signing, hashes.SHA256())
    )


def leaf(public: Any, issuer_key: Any, how: Leaf = Leaf()) -> x509.Certificate:
    """A leaf as `how` says."""
    builder = _builder(how.issuer, how.subject, public, how.serial, how.start, how.end)
    if how.usages:
        builder = builder.add_extension(x509.ExtendedKeyUsage(how.usages), critical=how.critical)
    return builder.sign(issuer_key, hashes.SHA256())


def _builder(issuer: str, subject: str, public: Any, serial: int, start: datetime, end: datetime) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .issuer_name(_name(issuer))
        .subject_name(_name(subject))
        .public_key(public)
        .serial_number(serial)
        .not_valid_before(start)
        .not_valid_after(end)
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])


def forger(how: Leaf = Leaf(), leaf_key: Any = None, root: int = 1) -> Forger:
    """An authority with one leaf below root `root`; by default an honest one."""
    leaf_key = leaf_key or key(2)
    return Forger(leaf_key, (leaf(leaf_key.public_key(), key(root), how), certificate_authority(root, how.issuer)))


def pinned(signer: Any, policy: str = "") -> timestamp.Authority:
    """The authority pinned as it is, also where `read_authority` would refuse it."""
    return timestamp.Authority("acme", signer.chain, policy)


def query(data: bytes = DATA, nonce: int = NONCE) -> bytes:
    return timestamp.query(data, nonce)


def respond(signer: Any, asked: bytes | None = None, now: datetime = NOW, serial: int = 4711) -> bytes:
    """The response of an authority to a query over DATA."""
    return tsa.answer(query() if asked is None else asked, signer, now, serial)


def changed(response: bytes, change: Any) -> bytes:
    """The response after `change(TimeStampResp)`, encoded again."""
    parsed = response_type().load(response)
    change(parsed)
    return parsed.dump(force=True)


def token_over(signer: Any, fields: dict[str, Any], certificates: tuple[x509.Certificate, ...] = ()) -> bytes:
    """A granted response over a TSTInfo whose fields are the honest ones, but for `fields` (None: left out)."""
    honest: dict[str, Any] = {
        "version": "v1", "policy": signer.policy, "serial_number": 4711, "gen_time": NOW, "nonce": NONCE,
        "message_imprint": {"hash_algorithm": {"algorithm": "sha256"}, "hashed_message": timestamp.imprint(DATA)},
        "accuracy": {"seconds": 1},
    } | fields  # fmt: skip
    info = tsp.TSTInfo({name: value for name, value in honest.items() if value is not None})
    return granted(tsa.sign_token(info.dump(), signer, certificates or signer.chain[:1]))


def granted(token: cms.ContentInfo) -> bytes:
    return response_type()({"status": tsp.PKIStatusInfo({"status": "granted"}), "time_stamp_token": token}).dump()


def unsorted(response: bytes) -> bytes:
    """The response with its certificate set in the wrong order, as `openssl ts -reply` with `certs` makes it."""
    contents = response_type().load(response)["time_stamp_token"]["content"]["certificates"].contents
    elements = [each.dump() for each in response_type().load(response)["time_stamp_token"]["content"]["certificates"]]
    backwards = b"".join(sorted(elements, reverse=True))
    assert len(backwards) == len(contents)
    assert backwards != contents
    return response.replace(contents, backwards)


def mimic() -> Forger:
    """A rogue whose root and leaf bear the honest ones' names and serial numbers, with keys of its own."""
    made = leaf(key(12).public_key(), key(11), Leaf())
    return Forger(key(12), (made, certificate_authority(11, "Honest root")))


def rogue() -> Forger:
    """A rogue with a root of its own, which its tokens embed."""
    how = replace(Leaf(), issuer="Rogue root", subject="Rogue authority", serial=666)
    made = leaf(key(12).public_key(), key(13), how)
    return Forger(key(12), (made, certificate_authority(13, "Rogue root")), whole_chain=True)


def pem(certificates: tuple[x509.Certificate, ...]) -> str:
    return b"".join(each.public_bytes(Encoding.PEM) for each in certificates).decode()


def read_pinned(certificates: tuple[x509.Certificate, ...]) -> timestamp.Authority:
    """Pinned the way the product does it."""
    return timestamp.read_authority("acme", pem(certificates))


def stamped(
    signer: Any, signed: bytes, name: str = "honest", nonce: int = NONCE, now: datetime = NOW
) -> tuple[Stamp, dict[str, bytes]]:
    """An archived checkpoint timestamped: what the entry about it says, and the files."""
    asked = timestamp.query(signed, nonce)
    response, certificates = respond(signer, asked, now), pem(signer.chain).encode()
    body = signed.decode().split("\n")
    size, root = int(body[1]), base64.b64decode(body[2]).hex()
    digests = anchor.digest_of(response), anchor.digest_of(certificates)
    stamp = Stamp(size, root, name, *digests, f"{now:%Y-%m-%dT%H:%M:%SZ}", signer.policy)
    return stamp, dict(zip(stamp.paths(), (signed, response, asked, certificates), strict=True))
