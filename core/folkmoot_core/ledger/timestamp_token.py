"""What an RFC 3161 response holds, read with asn1crypto and believed by nobody: ledger/timestamp.py checks it.

Called by `timestamp.verify` alone, which numbers the obligations that the comments here refer to; must not decide whom to trust.
asn1crypto is imported where it is used, for the reason given there.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from folkmoot_core.errors import Invalid

MAX_RESPONSE: Final = 64 * 1024
UNREADABLE: Final = (
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    OverflowError,
    RecursionError,
    NotImplementedError,
)
"""What asn1crypto raises for input that is not what its types say."""


@dataclass(frozen=True)
class Token:
    """What a verified token says. `accuracy` is what the authority claims, None where it claims nothing."""

    gen_time: datetime
    serial: int
    policy: str
    accuracy: timedelta | None
    signer: str
    nonce: int | None
    repaired: bool
    """Whether the certificate set had to be put in order first."""


@dataclass(frozen=True)
class Fields:
    """What asn1crypto shows of a response; nothing of it is trusted before the signature is checked."""

    token: Token
    algorithm: str
    imprint: bytes
    sid: tuple[bytes, int]
    embedded: tuple[bytes, ...]
    named: tuple[tuple[str, bytes], ...]
    """Hash algorithm and hash of the first certificate that each signing-certificate attribute names."""


def read(response: bytes, name: str, subject: str) -> tuple[bytes, Fields]:
    """Obligations 1-3: the response in canonical order, and what it holds. `name` and `subject` are the authority's."""
    where = f"timestamp of {name}"
    if len(response) > MAX_RESPONSE:  # 1
        raise Invalid(f"{where}: the answer has {len(response)} bytes; at most {MAX_RESPONSE}", reason="TokenTooLarge")
    try:
        ordered, repaired = _in_order(response)
        parsed = _parse(ordered)
        status = parsed["status"]["status"].native
        failure = [str(word) for word in parsed["status"]["fail_info"].native or ()]
    except UNREADABLE as error:
        raise Invalid(f"{where}: the answer is not the DER of a TimeStampResp", reason="NotAToken") from error
    _check_status(where, status, failure)
    try:
        return ordered, _fields(where, parsed, subject, repaired)
    except UNREADABLE as error:
        raise Invalid(f"{where}: the answer holds no readable timestamp token", reason="NotAToken") from error


@functools.cache
def response_type() -> Any:
    """TimeStampResp, whose token is optional (RFC 3161 §2.4.2); asn1crypto's own class has it as required."""
    from asn1crypto import cms, core, tsp

    fields = [("status", tsp.PKIStatusInfo), ("time_stamp_token", cms.ContentInfo, {"optional": True})]
    return type("TimeStampResp", (core.Sequence,), {"_fields": fields})


def _parse(response: bytes) -> Any:
    return response_type().load(response, strict=True)


def _in_order(response: bytes) -> tuple[bytes, bool]:
    """The response with SignedData.certificates in DER order. No signature covers that set, and sorting keeps its length, so
    the bytes are exchanged in place. Raises what asn1crypto raises."""
    from asn1crypto import parser

    token = _parse(response)["time_stamp_token"]
    if token.native is None or token["content_type"].native != "signed_data":
        return response, False
    contents = token["content"]["certificates"].contents
    if not contents:
        return response, False
    elements, rest = [], contents
    while rest:
        length = parser.peek(rest)
        elements.append(rest[:length])
        rest = rest[length:]
    ordered = b"".join(sorted(elements))
    return (response, False) if ordered == contents else (response.replace(contents, ordered, 1), True)


def _check_status(where: str, status: str, failure: list[str]) -> None:
    """Obligation 2. The answer's own free text is a stranger's and is not repeated."""
    if status == "granted":
        return
    if status == "granted_with_mods":
        raise Invalid(
            f"{where}: granted with modifications; what was asked for is wanted, not something like it", reason="GrantedWithMods"
        )
    words = ", ".join(sorted(failure)) if failure else "no reason"
    raise Invalid(f"{where}: the authority answered {status} ({words}) and gave no token", reason="TokenRejected")


def _fields(where: str, parsed: Any, subject: str, repaired: bool) -> Fields:
    """Obligation 3."""
    token = parsed["time_stamp_token"]
    if token.native is None or token["content_type"].native != "signed_data":
        raise Invalid(f"{where}: granted, but there is no signed token in the answer", reason="NotAToken")
    signed = token["content"]
    if signed["encap_content_info"]["content_type"].native != "tst_info":
        raise Invalid(f"{where}: what was signed is not a TSTInfo", reason="NotAToken")
    if len(signed["signer_infos"]) != 1:
        raise Invalid(f"{where}: {len(signed['signer_infos'])} signers; expected one", reason="NotAToken")
    info, signer = signed["encap_content_info"]["content"].parsed, signed["signer_infos"][0]
    if signer["sid"].name != "issuer_and_serial_number":
        raise Invalid(f"{where}: the signer is not named by issuer and serial number", reason="NotAToken")
    sid = signer["sid"].chosen
    issuer = sid["issuer"].dump()
    gen_time, accuracy = info["gen_time"].native, info["accuracy"].native
    if not isinstance(gen_time, datetime) or gen_time.tzinfo is None:  # the year 0; a time without its Z
        raise Invalid(f"{where}: its time is not one in UTC (RFC 3161 §2.4.2)", reason="NotAToken")
    said = Token(
        gen_time=gen_time, serial=info["serial_number"].native, policy=info["policy"].dotted,
        accuracy=None if accuracy is None else _accuracy(accuracy), signer=subject, nonce=info["nonce"].native, repaired=repaired,
    )  # fmt: skip
    embedded = signed["certificates"]
    return Fields(
        token=said, algorithm=info["message_imprint"]["hash_algorithm"]["algorithm"].native,
        imprint=info["message_imprint"]["hashed_message"].native, sid=(issuer, sid["serial_number"].native),
        embedded=() if embedded.native is None else tuple(each.chosen.dump() for each in embedded),
        named=tuple(_named(signer["signed_attrs"])),
    )  # fmt: skip


def _accuracy(fields: Any) -> timedelta:
    return timedelta(seconds=fields["seconds"] or 0, milliseconds=fields["millis"] or 0, microseconds=fields["micros"] or 0)


def _named(attributes: Any) -> list[tuple[str, bytes]]:
    found = []
    for attribute in attributes:
        if attribute["type"].native == "signing_certificate_v2":
            first = attribute["values"][0]["certs"][0]
            found.append((first["hash_algorithm"]["algorithm"].native, first["cert_hash"].native))
        elif attribute["type"].native == "signing_certificate":
            found.append(("sha1", attribute["values"][0]["certs"][0]["cert_hash"].native))
    return found


def identity(certificate: bytes) -> tuple[bytes, int]:
    """Issuer (DER) and serial number, as `Fields.sid` has them."""
    from asn1crypto import x509

    loaded = x509.Certificate.load(certificate)
    return loaded.issuer.dump(), loaded.serial_number
