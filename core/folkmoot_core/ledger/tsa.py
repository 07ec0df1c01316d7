"""A timestamp authority as a function: query, key, time and serial number in, response out. RFC 3161, RFC 5816.

The authority's own process calls it (`folkmoot_runtime.tsa`), and tests make good tokens with it. No clock, no randomness: both come in.
Obligations, numbered here and at the steps (sections of RFC 3161):

1. one DER value of a TimeStampReq, version 1, or failInfo badDataFormat or badRequest (§2.4.1, §2.4.2);
2. a hash that is still strong, or badAlg; an imprint of exactly that hash's length, or badDataFormat (§2.4.1);
3. the policy asked for is the authority's own, or unacceptedPolicy; a token always names the policy (§2.1 no. 5);
4. no extension is understood, so each is refused, critical or not, with unacceptedExtension (§2.4.1);
5. no token while the certificate is not valid: timeNotAvailable before it, systemFailure after it (§2.3: a valid key);
6. the nonce comes back as it was sent; serial numbers are unique: 63 random bits from the caller (§2.4.2);
7. the certificate is in the token if and only if it was asked for; it is always named by hash in the signed attributes
   (§2.4.1, §2.4.2, RFC 5816 §2.2.1);
8. sets are in DER order, so that strict readers accept them (ledger.md §3.4).

The caller still owes: a clock that is right, and serial numbers that it never uses again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from asn1crypto import algos, cms, core, tsp
from asn1crypto import x509 as asn1_x509
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from folkmoot_core.errors import Invalid
from folkmoot_core.ledger.timestamp_token import response_type

POLICY: Final = "2.25.255484727018109988091729173831469792076"
"""Below the arc of UUIDs (X.667), which needs no registry: c0349190-690f-4792-9f03-9ec9d3507b4c. It says: the time is that of the machine's clock."""
LIFETIME: Final = timedelta(days=3650)
BACKDATE: Final = timedelta(minutes=5)  # clocks of nodes differ
MAX_QUERY: Final = 64 * 1024
DIGESTS: Final = {"sha256": 32, "sha384": 48, "sha512": 64}
SERIAL_BITS: Final = 63
Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


@dataclass(frozen=True)
class Signer:
    """Key and certificates of an authority: its own certificate first. `accuracy` is in whole seconds."""

    key: Key
    chain: tuple[x509.Certificate, ...]
    policy: str = POLICY
    accuracy: int = 1
    whole_chain: bool = False
    """Whether a token that is to carry certificates carries the issuers' too."""

    def __post_init__(self) -> None:
        _check_key(self.key)
        if not self.chain or self.chain[0].public_key() != self.key.public_key():
            raise Invalid("timestamp authority: the first certificate of its chain is not that of its key")
        usage = [each for each in self.chain[0].extensions if isinstance(each.value, x509.ExtendedKeyUsage)]
        if not usage or not usage[0].critical or list(usage[0].value) != [ExtendedKeyUsageOID.TIME_STAMPING]:
            raise Invalid(
                "timestamp authority: its certificate must have the extended key usage timeStamping, critical and alone "
                "(RFC 3161 §2.3); issue it again"
            )


@dataclass(frozen=True)
class Refusal(Exception):
    """A failInfo word of RFC 3161 §2.4.2, with a sentence for the person who reads the answer."""

    fail_info: str
    message: str


def answer(query: bytes, signer: Signer, now: datetime, serial: int) -> bytes:
    """The DER of a TimeStampResp: granted with a token, or rejected with the reason. Never raises for what a query holds."""
    try:
        request = _parse(query)
        _check(request, signer, now)
    except Refusal as refused:
        return rejection(refused.fail_info, refused.message)
    info = _token_info(request, signer, now, serial)
    certificates = _certificates(signer) if request["cert_req"].native else ()
    token = sign_token(info.dump(), signer, certificates)
    status = tsp.PKIStatusInfo({"status": "granted"})
    return bytes(response_type()({"status": status, "time_stamp_token": token}).dump())


def refusal(query: bytes, signer: Signer, now: datetime) -> bytes | None:
    """What `answer` would refuse, refused; None where it would grant: before a serial number is spent on it."""
    try:
        _check(_parse(query), signer, now)
    except Refusal as refused:
        return rejection(refused.fail_info, refused.message)
    return None


def rejection(fail_info: str, message: str) -> bytes:
    """A response without a token."""
    status = {"status": "rejection", "status_string": [message], "fail_info": {fail_info}}
    return bytes(response_type()({"status": tsp.PKIStatusInfo(status)}).dump())


def _parse(query: bytes) -> Any:
    """Obligation 1."""
    if len(query) > MAX_QUERY:
        raise Refusal("bad_data_format", f"the query has {len(query)} bytes; at most {MAX_QUERY}")
    try:
        request = tsp.TimeStampReq.load(query, strict=True)
        version, _ = request["version"].native, request.native  # reads every field
        canonical = request.copy()
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise Refusal("bad_data_format", "the query is not the DER of a TimeStampReq") from error
    if version != "v1":
        raise Refusal("bad_request", "the query's version is not 1")
    return canonical


def _check(request: Any, signer: Signer, now: datetime) -> None:
    imprint = request["message_imprint"]
    algorithm = imprint["hash_algorithm"]["algorithm"].native
    if algorithm not in DIGESTS:  # 2
        raise Refusal("bad_alg", f"the hash is none of {', '.join(DIGESTS)}")
    if len(imprint["hashed_message"].native) != DIGESTS[algorithm]:
        raise Refusal("bad_data_format", f"the imprint is not as long as a {algorithm}")
    policy = request["req_policy"].native
    if policy is not None and request["req_policy"].dotted != signer.policy:  # 3
        raise Refusal("unaccepted_policy", f"this authority's one policy is {signer.policy}")
    if request["extensions"].native:  # 4
        raise Refusal("unaccepted_extensions", "this authority understands no extension")
    certificate = signer.chain[0]
    if now < certificate.not_valid_before_utc:  # 5
        raise Refusal("time_not_available", "this authority's clock is before its certificate's first day")
    if now > certificate.not_valid_after_utc:
        raise Refusal("system_failure", "this authority's certificate has expired")


def _token_info(request: Any, signer: Signer, now: datetime, serial: int) -> Any:
    fields: dict[str, Any] = {
        "version": "v1", "policy": signer.policy, "message_imprint": request["message_imprint"].copy(), "serial_number": serial,
        "gen_time": now.astimezone(UTC).replace(microsecond=0), "accuracy": {"seconds": signer.accuracy},
    }  # fmt: skip
    if request["nonce"].native is not None:  # 6
        fields["nonce"] = request["nonce"].native
    return tsp.TSTInfo(fields)


def _certificates(signer: Signer) -> tuple[x509.Certificate, ...]:
    """Obligation 7: its own alone; who pins the authority has the issuers."""
    return signer.chain if signer.whole_chain else signer.chain[:1]


def sign_token(info: bytes, signer: Signer, certificates: Iterable[x509.Certificate]) -> Any:
    """The CMS SignedData (RFC 5652 §5) around the DER of a TSTInfo, with `certificates` beside it."""
    certificate = signer.chain[0]
    issuer_serial = {"issuer": _issuer_names(certificate), "serial_number": certificate.serial_number}
    ess = {"hash_algorithm": {"algorithm": "sha256"}, "cert_hash": certificate.fingerprint(hashes.SHA256()),
           "issuer_serial": issuer_serial}  # fmt: skip
    attributes = cms.CMSAttributes(
        [
            cms.CMSAttribute({"type": "content_type", "values": ["tst_info"]}),
            cms.CMSAttribute({"type": "message_digest", "values": [hashlib.sha256(info).digest()]}),
            cms.CMSAttribute({"type": "signing_certificate_v2", "values": [tsp.SigningCertificateV2({"certs": [ess]})]}),  # 7
        ]
    )
    own = asn1_x509.Certificate.load(certificate.public_bytes(Encoding.DER))
    sid = cms.IssuerAndSerialNumber({"issuer": own.issuer, "serial_number": certificate.serial_number})
    algorithm = "sha256_ecdsa" if isinstance(signer.key, ec.EllipticCurvePrivateKey) else "rsassa_pkcs1v15"
    signer_info = {
        "version": "v1", "sid": cms.SignerIdentifier({"issuer_and_serial_number": sid}),
        "digest_algorithm": algos.DigestAlgorithm({"algorithm": "sha256"}), "signed_attrs": attributes,
        "signature_algorithm": algos.SignedDigestAlgorithm({"algorithm": algorithm}),
        "signature": _sign(signer.key, attributes.dump()),
    }  # fmt: skip
    signed: dict[str, Any] = {
        "version": "v3", "digest_algorithms": [algos.DigestAlgorithm({"algorithm": "sha256"})],
        "encap_content_info": {"content_type": "tst_info", "content": core.ParsableOctetString(info)},
        "signer_infos": [cms.SignerInfo(signer_info)],
    }  # fmt: skip
    encoded = sorted(each.public_bytes(Encoding.DER) for each in certificates)  # 8
    if encoded:
        signed["certificates"] = [cms.CertificateChoices("certificate", asn1_x509.Certificate.load(each)) for each in encoded]
    return cms.ContentInfo({"content_type": "signed_data", "content": cms.SignedData(signed)})


def _issuer_names(certificate: x509.Certificate) -> list[Any]:
    own = asn1_x509.Certificate.load(certificate.public_bytes(Encoding.DER))
    return [asn1_x509.GeneralName("directory_name", own.issuer)]


def _sign(key: Key, data: bytes) -> bytes:
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return key.sign(data, ec.ECDSA(hashes.SHA256()))
    return key.sign(data, padding.PKCS1v15(), hashes.SHA256())


def _check_key(key: object) -> None:
    if isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP256R1):
        return
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size >= 2048:
        return
    raise Invalid("timestamp authority: its key must be ECDSA P-256, or RSA of at least 2048 bits")


@dataclass(frozen=True)
class Birth:
    """What a new authority is made from: two fresh keys, two fresh serial numbers, its name and the time."""

    root: ec.EllipticCurvePrivateKey
    key: Key
    serials: tuple[int, int]
    name: str
    now: datetime


def make_chain(birth: Birth) -> tuple[x509.Certificate, x509.Certificate]:
    """The authority's own certificate and the root it hangs on. Throw the root's key away afterwards: then nobody, not even
    the authority, can make a second certificate below the root that was pinned."""
    root_name, name = _name(f"{birth.name} root"), _name(birth.name)
    root = (
        _builder(root_name, root_name, birth.root.public_key(), birth, birth.serials[0])
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(certificates=True), critical=True)
        .sign(birth.root, hashes.SHA256())
    )
    own = (
        _builder(root_name, name, birth.key.public_key(), birth, birth.serials[1])
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.TIME_STAMPING]), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(birth.root.public_key()), critical=False)
        .sign(birth.root, hashes.SHA256())
    )
    return own, root


def _builder(
    issuer: x509.Name, subject: x509.Name, public: ec.EllipticCurvePublicKey | rsa.RSAPublicKey, birth: Birth, serial: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .issuer_name(issuer)
        .subject_name(subject)
        .public_key(public)
        .serial_number(serial)
        .not_valid_before(birth.now - BACKDATE)
        .not_valid_after(birth.now + LIFETIME)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name[:64])])


def _usage(*, certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not certificates, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=certificates, crl_sign=certificates, encipher_only=False, decipher_only=False,
    )  # fmt: skip
