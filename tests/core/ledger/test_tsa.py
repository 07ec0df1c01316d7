"""An authority as a function: what it grants verifies, what it refuses has RFC 3161's word for it, and its chain is made once."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import timestamps
from asn1crypto import tsp
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID
from timestamps import DATA, NONCE, NOW, Leaf

from folkmoot_core.errors import Invalid
from folkmoot_core.ledger import timestamp, tsa
from folkmoot_core.ledger.timestamp_token import response_type

ROOT_KEY, KEY = timestamps.key(21), timestamps.key(22)
BIRTH = tsa.Birth(ROOT_KEY, KEY, (11, 12), "Authority of the test", NOW)
SIGNER = tsa.Signer(KEY, tsa.make_chain(BIRTH))


def asked(**changes: Any) -> bytes:
    request = tsp.TimeStampReq.load(timestamps.query())
    fields = {name: request[name] for name in ("version", "message_imprint", "nonce", "cert_req")}
    return bytes(tsp.TimeStampReq({**fields, **changes}).dump())


def refusal(query: bytes, signer: tsa.Signer = SIGNER, after: timedelta = timedelta()) -> set[str]:
    response = tsa.answer(query, signer, NOW + after, 1)
    assert tsa.refusal(query, signer, NOW + after) == response  # known before a number is spent on it
    status = response_type().load(response)["status"]
    assert status["status"].native == "rejection"
    return set(status["fail_info"].native)


def test_a_new_authority_is_pinned_and_its_tokens_verify() -> None:
    assert tsa.refusal(timestamps.query(), SIGNER, NOW) is None
    pinned = timestamp.read_authority("own", timestamps.pem(SIGNER.chain), tsa.POLICY)
    token = timestamp.verify(tsa.answer(timestamps.query(), SIGNER, NOW, 2**100 + 1), DATA, pinned, NONCE)
    assert (token.gen_time, token.serial, token.accuracy) == (NOW, 2**100 + 1, timedelta(seconds=1))
    usage = pinned.leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage)
    assert usage.critical
    assert list(usage.value) == [ExtendedKeyUsageOID.TIME_STAMPING]
    assert pinned.root.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length == 0


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: b"", "bad_data_format"),
        (lambda: b"\x30\x03\x02\x01\x01", "bad_data_format"),
        (lambda: timestamps.query() + b"\0", "bad_data_format"),
        (lambda: b"\0" * (tsa.MAX_QUERY + 1), "bad_data_format"),
        (lambda: timestamps.query().replace(b"\x02\x01\x01\x30", b"\x02\x01\x05\x30", 1), "bad_request"),
        (lambda: asked(message_imprint={"hash_algorithm": {"algorithm": "sha1"}, "hashed_message": b"\0" * 20}), "bad_alg"),
        (lambda: asked(message_imprint={"hash_algorithm": {"algorithm": "sha256"}, "hashed_message": b"\0" * 20}), "bad_data_format"),
        (lambda: asked(req_policy="1.2.3"), "unaccepted_policy"),
        (lambda: asked(extensions=[{"extn_id": "1.2.3", "critical": False, "extn_value": b"x"}]), "unaccepted_extensions"),
    ],
)  # fmt: skip
def test_what_it_cannot_grant_it_refuses_by_name(make: Callable[[], bytes], word: str) -> None:
    assert refusal(make()) == {word}


def test_it_signs_nothing_outside_its_certificates_time() -> None:
    assert refusal(timestamps.query(), after=-timedelta(days=1)) == {"time_not_available"}
    assert refusal(timestamps.query(), after=tsa.LIFETIME + timedelta(days=1)) == {"system_failure"}


def test_the_certificate_comes_along_only_where_it_was_asked_for_and_a_nonce_only_if_there_was_one() -> None:
    bare = tsa.answer(asked(cert_req=False, nonce=None), SIGNER, NOW, 1)
    assert SIGNER.chain[0].signature not in bare
    pinned = timestamp.Authority("own", SIGNER.chain)
    assert timestamp.verify(bare, DATA, pinned, None).nonce is None
    assert SIGNER.chain[0].signature in tsa.answer(timestamps.query(), SIGNER, NOW, 1)
    whole = tsa.answer(timestamps.query(), dataclasses.replace(SIGNER, whole_chain=True), NOW, 1)
    assert SIGNER.chain[1].signature in whole
    assert timestamp.verify(whole, DATA, pinned, NONCE).serial == 1


@pytest.mark.parametrize(
    ("key", "chain", "sentence"),
    [
        (timestamps.key(3), SIGNER.chain, "not that of its key"),
        (KEY, (), "not that of its key"),
        (KEY, (timestamps.leaf(KEY.public_key(), ROOT_KEY, Leaf(critical=False)),), "critical and alone"),
        (ec.generate_private_key(ec.SECP384R1()), (), "must be ECDSA P-256, or RSA"),
        (rsa.generate_private_key(65537, 1024), (), "must be ECDSA P-256, or RSA"),  # noqa: S505 - it is refused
    ],
)
def test_a_signer_that_could_make_no_good_token_is_not_made(key: Any, chain: tuple[Any, ...], sentence: str) -> None:
    with pytest.raises(Invalid, match=sentence):
        tsa.Signer(key, chain)


def test_an_rsa_authority_signs_too() -> None:
    key = timestamps.rsa_key()
    signer = tsa.Signer(key, tsa.make_chain(dataclasses.replace(BIRTH, key=key)))
    token = timestamp.verify(
        tsa.answer(timestamps.query(), signer, NOW, 5), DATA, timestamp.Authority("own", signer.chain), NONCE
    )
    assert token.serial == 5
