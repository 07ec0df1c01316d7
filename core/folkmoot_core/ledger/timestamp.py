"""RFC 3161 timestamps: build a query, and check the response against an authority whose certificates were pinned before.

The ledger's anchors, `folkmoot verify` and the reports call it. rfc3161ng builds and reads queries, rfc3161-client checks the
signature and the chain, asn1crypto looks at what the two do not show; no verdict rests on rfc3161ng (ledger.md §3.1). The three
are imported where they are used: together they cost a process about 17 MiB, which a tenant without an authority does not pay,
and who only reads pinned certificates (the operator) does not even have them installed.

Obligations of `verify`, numbered here and at the steps (sections of RFC 3161):

1. bounded size, one DER value; the unsigned certificate set may be out of order and is put in order first (ledger.md §3.4);
2. status granted and nothing else: grantedWithMods is not what was asked for (§2.4.2);
3. the content is a TSTInfo in a SignedData with one signer (§2.4.2);
4. the signer is the pinned certificate: by issuer and serial number, by the certificate in the token if there is one, and by
   the hash in the signed attributes (§2.4.1, RFC 5816 §2.2.1);
5. that certificate's one extended key usage is timeStamping, and critical (§2.3);
6. it and its issuers up to the pinned root were valid at genTime, and each issued the one before; what the token embeds is
   never trusted (ledger.md §3.3);
7. the imprint is the SHA-256 of the data, the nonce is the query's, the policy the one that was pinned, if one was (§2.4.2);
8. the signature is the pinned key's over exactly that content.

The caller still owes: certificates from a source other than the token, a nonce that was never used before, and whether a
certificate had been revoked at genTime.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, ObjectIdentifier

from folkmoot_core.errors import Invalid
from folkmoot_core.ledger.timestamp_token import MAX_RESPONSE, UNREADABLE, Fields, Token, identity, read

MAX_PEM: Final = 64 * 1024
MAX_CHAIN: Final = 8
NONCE_BITS: Final = 64
NAME: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
_OID: Final = re.compile(r"[0-2](\.(0|[1-9][0-9]{0,40})){1,30}", re.ASCII)
QUERY_TYPE: Final = "application/timestamp-query"
REPLY_TYPE: Final = "application/timestamp-reply"
__all__ = ["MAX_RESPONSE", "Authority", "Token", "imprint", "query", "read_authority", "read_nonce", "verify"]


@dataclass(frozen=True)
class Authority:
    """An authority as it was pinned: its own certificate, the issuers in order, the root. `policy` empty: any."""

    name: str
    chain: tuple[x509.Certificate, ...]
    policy: str = ""

    @property
    def leaf(self) -> x509.Certificate:
        """The authority's own certificate."""
        return self.chain[0]

    @property
    def root(self) -> x509.Certificate:
        """Where its chain ends."""
        return self.chain[-1]

    def pem(self) -> bytes:
        """As it is kept beside the tokens."""
        return b"".join(each.public_bytes(Encoding.PEM) for each in self.chain)


def read_authority(name: str, pem: str, policy: str = "") -> Authority:
    """The pinned authority from PEM: its own certificate first, intermediates, the root last. Raises `Invalid`."""
    if not NAME.fullmatch(name):
        raise Invalid(f"timestamp authority {name[:80]!r}: its name must be a DNS label, because files are named after it")
    if len(pem) > MAX_PEM:
        raise Invalid(f"timestamp authority {name}: its certificates are {len(pem)} characters of PEM; at most {MAX_PEM}")
    try:
        chain = tuple(x509.load_pem_x509_certificates(pem.encode()))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise Invalid(f"timestamp authority {name}: its certificates are not readable PEM ({type(error).__name__})") from error
    if not 2 <= len(chain) <= MAX_CHAIN:
        raise Invalid(
            f"timestamp authority {name}: {len(chain)} certificates; expected its own first, intermediates, and its root last "
            f"(2 to {MAX_CHAIN})"
        )
    if policy and not is_oid(policy):
        raise Invalid(f"timestamp authority {name}: policy {policy[:80]!r} is not an object identifier such as 1.2.3")
    authority = Authority(name, chain, policy)
    _check_purpose(authority)
    _check_issuers(authority)
    return authority


def is_oid(policy: str) -> bool:
    """Whether every reader and writer of tokens here takes it: `1.99` and arcs without end are none."""
    try:
        return bool(_OID.fullmatch(policy)) and bool(ObjectIdentifier(policy))
    except ValueError:
        return False


def imprint(data: bytes) -> bytes:
    """What is timestamped of archived bytes (a signed checkpoint): their SHA-256. ledger.md §3.5."""
    return hashlib.sha256(data).digest()


def query(data: bytes, nonce: int, policy: str = "") -> bytes:
    """The DER of a TimeStampReq over `data`: SHA-256, with a nonce, asking for the certificate. RFC 3161 §2.4.1."""
    import rfc3161ng

    if not 0 < nonce < 2**NONCE_BITS:
        raise Invalid(f"timestamp query: the nonce must be a number of at most {NONCE_BITS} bits, and not 0")
    request = rfc3161ng.make_timestamp_request(
        digest=imprint(data), hashname="sha256", include_tsa_certificate=True, nonce=nonce, tsa_policy_id=policy or None
    )
    return bytes(rfc3161ng.encode_timestamp_request(request))


def read_nonce(stored_query: bytes) -> int:
    """The nonce of a stored query; raises `Invalid` where there is none."""
    import rfc3161ng
    from pyasn1.error import PyAsn1Error

    try:
        return int(rfc3161ng.decode_timestamp_request(stored_query)["nonce"])
    except (PyAsn1Error, *UNREADABLE) as error:
        raise Invalid("stored timestamp query: not the DER of a TimeStampReq with a nonce", reason="NotAQuery") from error


def verify(response: bytes, data: bytes, authority: Authority, nonce: int | None) -> Token:
    """Check obligations 1-8 and return what the token says; raises `Invalid` with a reason word. `nonce` None: not checked,
    for who has the token alone and not the query."""
    ordered, fields = read(response, authority.name, authority.leaf.subject.rfc4514_string()[:200])
    _check_signer(fields, authority)
    _check_purpose(authority)
    _check_validity(authority, fields.token.gen_time)
    _check_issuers(authority)
    _check_content(fields, data, authority, nonce)
    _check_signature(ordered, data, authority, fields)
    return fields.token


def _check_signer(fields: Fields, authority: Authority) -> None:
    """Obligation 4."""
    where, leaf = f"timestamp of {authority.name}", authority.leaf
    own = leaf.public_bytes(Encoding.DER)
    if fields.sid != identity(own):
        raise Invalid(
            f"{where}: signed by another certificate than the pinned one (serial number {leaf.serial_number:x}); "
            "if the authority changed its certificate, pin the new one",
            reason="OtherSigner",
        )
    if fields.embedded and own not in fields.embedded:
        raise Invalid(
            f"{where}: the token brings certificates, and the pinned one is not among them; only pinned ones are trusted",
            reason="OtherSigner",
        )
    if not fields.named:
        raise Invalid(
            f"{where}: the token does not name its certificate in the signed attributes (RFC 5816)", reason="OtherSigner"
        )
    for algorithm, value in fields.named:
        if (
            algorithm not in ("sha1", "sha256", "sha384", "sha512")
            or hashlib.new(algorithm, own, usedforsecurity=False).digest() != value
        ):
            raise Invalid(f"{where}: the certificate that the signature names is not the pinned one", reason="OtherSigner")


def _check_purpose(authority: Authority) -> None:
    """Obligation 5."""
    where = f"timestamp authority {authority.name}: its certificate"
    try:
        usage = authority.leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage)
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError) as error:
        raise Invalid(f"{where} has no extended key usage; expected timeStamping", reason="WrongPurpose") from error
    if list(usage.value) != [ExtendedKeyUsageOID.TIME_STAMPING]:
        raise Invalid(
            f"{where} is not for timestamps alone: its one extended key usage must be timeStamping", reason="WrongPurpose"
        )
    if not usage.critical:
        raise Invalid(
            f"{where} has the extended key usage timeStamping, but not as critical (RFC 3161 §2.3)", reason="WrongPurpose"
        )


def _check_validity(authority: Authority, at: datetime) -> None:
    """Obligation 6, first half: a certificate that expires later is no objection to an older token."""
    for certificate in authority.chain:
        if not certificate.not_valid_before_utc <= at <= certificate.not_valid_after_utc:
            whose = "its certificate" if certificate is authority.leaf else "a certificate of its chain"
            raise Invalid(
                f"timestamp of {authority.name}: {whose} was not valid at the token's time {at:%Y-%m-%dT%H:%M:%SZ} (valid "
                f"{certificate.not_valid_before_utc:%Y-%m-%d} to {certificate.not_valid_after_utc:%Y-%m-%d})",
                reason="CertificateExpired",
            )


def _check_issuers(authority: Authority) -> None:
    """Obligation 6, second half: RFC 5280 §6.1 for a path that is given, without names and policies to constrain."""
    where = f"timestamp authority {authority.name}"
    for certificate, issuer in zip(authority.chain, (*authority.chain[1:], authority.root), strict=True):
        try:
            certificate.verify_directly_issued_by(issuer)
            authorised = issuer.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        except (
            ValueError,
            TypeError,
            InvalidSignature,
            UnsupportedAlgorithm,
            x509.ExtensionNotFound,
            x509.DuplicateExtension,
        ) as error:
            raise Invalid(
                f"{where}: its chain does not lead to the pinned root: a certificate was not issued by the next; "
                "pin its own certificate first, then its issuers in order, the root last",
                reason="UntrustedChain",
            ) from error
        if not authorised:
            raise Invalid(
                f"{where}: a certificate of its chain may not issue certificates (basicConstraints)", reason="UntrustedChain"
            )


def _check_content(fields: Fields, data: bytes, authority: Authority, nonce: int | None) -> None:
    """Obligation 7."""
    where = f"timestamp of {authority.name}"
    if fields.algorithm != "sha256" or fields.imprint != imprint(data):
        raise Invalid(f"{where}: it was made over other data than this (SHA-256 expected)", reason="OtherData")
    if nonce is not None and fields.token.nonce != nonce:
        raise Invalid(f"{where}: its nonce is not the query's, so it answers another query", reason="WrongNonce")
    if authority.policy and fields.token.policy != authority.policy:
        raise Invalid(f"{where}: made under policy {fields.token.policy[:80]}; expected {authority.policy}", reason="WrongPolicy")


def _check_signature(ordered: bytes, data: bytes, authority: Authority, fields: Fields) -> None:
    """Obligation 8, by a second reader who also looks at 2, 5, 6 and 7 again; leaf and root are both pinned, always."""
    from rfc3161_client import VerificationError, VerifierBuilder, decode_timestamp_response

    where = f"timestamp of {authority.name}"
    try:
        builder = VerifierBuilder(
            tsa_certificate=authority.leaf, intermediates=list(authority.chain[1:-1]), roots=[authority.root],
            nonce=fields.token.nonce, policy_id=ObjectIdentifier(fields.token.policy),
        )  # fmt: skip
        response = decode_timestamp_response(ordered)
    except ValueError as error:
        raise Invalid(
            f"{where}: the token is not strict DER, or has fields this reader does not know", reason="NotAToken"
        ) from error
    try:
        builder.build().verify_message(response, data)
    except (VerificationError, ValueError) as error:
        raise Invalid(f"{where}: the signature does not verify with the pinned certificates", reason="BadSignature") from error
    seen = response.tst_info
    if (seen.serial_number, seen.gen_time) != (fields.token.serial, fields.token.gen_time):
        raise Invalid(f"{where}: two readers disagree on what the token says", reason="NotAToken")
