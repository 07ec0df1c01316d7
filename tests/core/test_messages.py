"""Envelopes through stream fields, signatures over all but what the router moves, manifests in canonical order."""

from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from folkmoot_core import signing
from folkmoot_core.errors import Invalid
from folkmoot_core.messages import Envelope, WorkspaceFile, WorkspaceManifest
from folkmoot_core.signing import SigningKey

KEY = SigningKey(Ed25519PrivateKey.from_private_bytes(b"k" * 32))
GOOD = Envelope(request_id="12345678", tenant="acme", sender="core", to="athena", kind="task", created_ms=1)


@given(body=st.text(max_size=200), number=st.integers(0, 2**53 - 1))
def test_fields_and_back(body: str, number: int) -> None:
    envelope = GOOD.model_copy(update={"body": body, "created_ms": number, "deadline_ms": number})
    assert Envelope.from_fields(envelope.to_fields()) == envelope


@pytest.mark.parametrize(
    "change",
    [{"v": "2"}, {"v": ""}, {"kind": "order"}, {"created_ms": "-1"}, {"request_id": "short"}, {"more": "x"}, {"to": "x" * 65}],
)
def test_what_does_not_fit_is_refused_without_its_content(change: dict[str, str]) -> None:
    with pytest.raises(Invalid) as error:
        Envelope.from_fields({**GOOD.to_fields(), "body": "canary", **change})
    assert "canary" not in error.value.message


def test_the_signature_covers_all_but_attempt_and_deadline() -> None:
    signed = KEY.sign(GOOD)
    assert signing.verify(signed, [b"x" * 32, KEY.public])
    assert signing.verify(signed.model_copy(update={"attempt": 3, "deadline_ms": 99}), [KEY.public])
    for change in (
        {"to": "hermes"},
        {"tenant": "other"},
        {"body": "{} "},
        {"kind": "cancel"},
        {"ack_for": "x"},
        {"created_ms": 2},
    ):
        assert not signing.verify(signed.model_copy(update=change), [KEY.public])


@pytest.mark.parametrize("signature", ["", "é", "AAAA", base64.b64encode(b"x" * 64).decode()])
def test_rubbish_is_no_signature(signature: str) -> None:
    assert not signing.verify(GOOD.model_copy(update={"signature": signature}), [KEY.public, b"short"])


def test_what_has_no_canonical_form_is_not_signed_by_anybody() -> None:
    assert not signing.verify(KEY.sign(GOOD).model_copy(update={"created_ms": 2**60}), [KEY.public])


def test_public_keys_travel_as_base64() -> None:
    assert signing.public_key(KEY.public_text()) == KEY.public
    for text in ("", "é", base64.b64encode(b"short").decode()):
        with pytest.raises(Invalid):
            signing.public_key(text)
    assert len(signing.fingerprint(KEY.public)) == 64


def test_a_manifest_does_not_depend_on_the_order_of_its_files() -> None:
    a, b = (WorkspaceFile(path=name, digest="sha256:0", size=1) for name in "ab")
    assert WorkspaceManifest(files=(a, b)).canonical() == WorkspaceManifest(files=(b, a)).canonical()
