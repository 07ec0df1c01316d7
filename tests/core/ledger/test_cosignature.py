"""Cosignatures of both types: vectors, the exact bytes that are signed, and everything that must not verify."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from folkmoot_core.errors import Invalid
from folkmoot_core.ledger import checkpoint, cosignature, cosigned, note
from folkmoot_core.ledger.checkpoint import Checkpoint
from folkmoot_core.ledger.cosignature import Ed25519Cosigner, MlDsaSigner
from folkmoot_core.ledger.note import COSIGNATURE, ED25519, MLDSA44, Ed25519Signer, VerifierKey

VECTORS = json.loads((Path(__file__).parents[2] / "vectors/tlog/roots.json").read_text())
NOW = 1_679_315_147
LOG = Ed25519Signer.from_seed(VECTORS["name"], bytes.fromhex(VECTORS["seed"]))
LOG_PQ = MlDsaSigner.from_seed(VECTORS["name"], b"p" * 32)
WITNESS = Ed25519Cosigner.from_seed(VECTORS["witness_name"], bytes.fromhex(VECTORS["witness_seed"]))
WITNESS_PQ = MlDsaSigner.from_seed(VECTORS["witness_name"], b"q" * 32)
COSIGNERS = (WITNESS, WITNESS_PQ)
POINT = Checkpoint(VECTORS["name"], 3, bytes.fromhex(VECTORS["roots"]["3"]))
TEXT = POINT.body()


def payload(line: str) -> bytes:
    (parsed,) = note.parse_lines(line)
    return parsed.payload


def test_the_witness_vector() -> None:
    assert WITNESS.verifier().vkey() == VECTORS["witness_vkey"]
    assert note.parse_vkey(VECTORS["witness_vkey"]) == WITNESS.verifier()


@pytest.mark.parametrize("key", [LOG.verifier(), WITNESS.verifier(), LOG_PQ.verifier()], ids=["01", "04", "06"])
def test_vkeys_of_every_type_come_back(key: VerifierKey) -> None:
    assert note.parse_vkey(key.vkey()) == key
    assert len(key.public) == note.KEY_BYTES[key.algorithm]
    wrong = bytes([key.algorithm]) + key.public + b"\0"
    with pytest.raises(Invalid, match="expected a key of type"):
        note.parse_vkey(VerifierKey(key.name, wrong[1:], key.algorithm).vkey())


def test_the_same_key_under_another_type_is_another_key() -> None:
    one = WITNESS.verifier()
    other = VerifierKey(one.name, one.public, ED25519)
    assert one.id != other.id
    line = WITNESS.line(TEXT, NOW)
    assert one.verify(TEXT, payload(line))
    assert not other.verify(TEXT, payload(line))
    assert not other.verify(f"cosignature/v1\ntime {NOW}\n{TEXT}", payload(line))
    assert other.verify(f"cosignature/v1\ntime {NOW}\n{TEXT}", payload(line)[8:])


def test_the_bytes_that_are_signed() -> None:
    assert cosigned.ed25519_message(TEXT, NOW) == f"cosignature/v1\ntime 1679315147\n{TEXT}".encode()
    name, origin = WITNESS.name.encode(), POINT.origin.encode()
    expected = b"subtree/v1\n\0" + bytes([len(name)]) + name + struct.pack(">Q", NOW) + bytes([len(origin)]) + origin
    assert cosigned.mldsa_message(WITNESS.name, TEXT, NOW) == expected + struct.pack(">QQ", 0, 3) + POINT.root


@pytest.mark.parametrize("cosigner", COSIGNERS, ids=["04", "06"])
def test_a_cosignature_verifies_for_its_text_time_and_key_alone(cosigner: Ed25519Cosigner | MlDsaSigner) -> None:
    key, made = cosigner.verifier(), payload(cosigner.line(TEXT, NOW))
    assert key.verify(TEXT, made)
    assert cosignature.timestamp(made) == NOW
    assert not key.verify(Checkpoint(POINT.origin, 4, POINT.root).body(), made)
    assert not key.verify(Checkpoint("other.example/log", 3, POINT.root).body(), made)
    assert not key.verify("no checkpoint\n", made)
    assert not key.verify(TEXT, struct.pack(">Q", NOW + 1) + made[8:])
    assert not key.verify(TEXT, struct.pack(">Q", 2**63) + made[8:])
    for wrong in (b"", made[:-1], made + b"\0", made[8:]):
        assert not key.verify(TEXT, wrong)
    stranger = type(cosigner).from_seed(cosigner.name, b"s" * 32).verifier()
    assert not stranger.verify(TEXT, made)


@pytest.mark.parametrize("cosigner", COSIGNERS, ids=["04", "06"])
def test_every_changed_byte_of_a_cosignature_is_refused(cosigner: Ed25519Cosigner | MlDsaSigner) -> None:
    key, made = cosigner.verifier(), payload(cosigner.line(TEXT, NOW))
    for position in range(len(made)):
        assert not key.verify(TEXT, made[:position] + bytes([made[position] ^ 1]) + made[position + 1 :]), position


def test_the_name_is_in_the_ml_dsa_message_and_not_in_the_ed25519_one() -> None:
    for cosigner, verifies in ((WITNESS, True), (WITNESS_PQ, False)):
        renamed = VerifierKey("other.example/w", cosigner.verifier().public, cosigner.verifier().algorithm)
        assert renamed.verify(TEXT, payload(cosigner.line(TEXT, NOW))) is verifies


def test_extension_lines_are_in_the_ed25519_message_and_not_in_the_ml_dsa_one() -> None:
    extended = Checkpoint(POINT.origin, 3, POINT.root, ("more",)).body()
    for cosigner, verifies in ((WITNESS, False), (WITNESS_PQ, True)):
        assert cosigner.verifier().verify(extended, payload(cosigner.line(TEXT, NOW))) is verifies


def test_a_log_signs_with_both_keys_and_both_can_be_asked_for() -> None:
    second = LOG_PQ.at(NOW)
    assert (second.name, second.verifier()) == (LOG.name, LOG_PQ.verifier())
    signed = POINT.sign([LOG, second])
    assert [line.name for line in note.split(signed)[1]] == [POINT.origin, POINT.origin]
    assert len(signed) < 4000
    both = [LOG.verifier(), LOG_PQ.verifier()]
    assert checkpoint.open_checkpoint(signed, both) == POINT
    assert checkpoint.open_checkpoint(signed, LOG_PQ.verifier()) == POINT
    with pytest.raises(Invalid, match=f"lacks the signature of {POINT.origin} with key id {both[1].id.hex()}"):
        checkpoint.open_checkpoint(POINT.sign([LOG]), both)


def test_cosignatures_stand_beside_the_logs_own_lines() -> None:
    signed = POINT.sign([LOG, LOG_PQ.at(NOW), *(one.at(NOW + 1) for one in COSIGNERS)])
    opened = note.open_note(signed, [LOG.verifier(), *(one.verifier() for one in COSIGNERS)])
    assert [key.algorithm for key in opened.signers] == [ED25519, COSIGNATURE, MLDSA44]
    text, lines = note.split(signed)
    assert (text + "\n" + "".join(line.text() for line in lines)).encode() == signed
    assert {cosignature.timestamp(line.payload) for line in lines[2:]} == {NOW + 1}


def test_a_false_cosignature_of_a_known_witness_refuses_the_note() -> None:
    foreign = WITNESS_PQ.line(Checkpoint(POINT.origin, 4, POINT.root).body(), NOW)
    signed = POINT.sign([LOG]) + foreign.encode()
    assert checkpoint.open_checkpoint(signed, LOG.verifier()) == POINT
    with pytest.raises(Invalid, match="does not verify"):
        note.open_note(signed, [LOG.verifier(), WITNESS_PQ.verifier()])


@pytest.mark.parametrize("cosigner", COSIGNERS, ids=["04", "06"])
def test_what_cannot_be_cosigned_is_refused(cosigner: Ed25519Cosigner | MlDsaSigner) -> None:
    for seconds in (-1, 2**63):
        with pytest.raises(Invalid, match="time"):
            cosigner.line(TEXT, seconds)
    with pytest.raises(Invalid, match="expected lines origin"):
        cosigner.line("text\n", NOW)
    with pytest.raises(Invalid, match="32 bytes"):
        type(cosigner).from_seed("name", b"short")
    with pytest.raises(Invalid, match="key name"):
        type(cosigner).from_seed("a name", b"s" * 32)


def test_an_origin_that_ml_dsa_cannot_hold_is_refused() -> None:
    long = Checkpoint("o" * 256, 3, POINT.root).body()
    with pytest.raises(Invalid, match="origin has 256 bytes"):
        WITNESS_PQ.line(long, NOW)
    assert not WITNESS_PQ.verifier().verify(long, payload(WITNESS_PQ.line(TEXT, NOW)))
    assert WITNESS.verifier().verify(long, payload(WITNESS.line(long, NOW)))


def test_times_of_anything_but_a_cosignature_are_refused() -> None:
    for wrong in (b"", payload(LOG.line(TEXT)), struct.pack(">Q", 2**63) + b"\0" * 64, b"\0" * 71):
        with pytest.raises(Invalid, match="cosignature"):
            cosignature.timestamp(wrong)


@given(st.text(max_size=80), st.binary(max_size=100), st.integers(0, 2**64 - 1))
def test_verifying_never_raises(text: str, rest: bytes, seconds: int) -> None:
    for signer in (LOG, WITNESS, WITNESS_PQ):
        key = signer.verifier()
        size = note.SIGNATURE_BYTES[key.algorithm]
        for candidate in (rest, (struct.pack(">Q", seconds) + rest).ljust(size, b"\0")[:size]):
            assert not key.verify(text, candidate)
            assert not key.verify(TEXT, candidate)


@given(st.text(max_size=60), st.integers(0, 2**63 - 1), st.binary(min_size=32, max_size=32))
def test_what_one_signs_the_other_verifies(origin: str, size: int, root: bytes) -> None:
    text = Checkpoint(origin, size, root).body()
    for cosigner in COSIGNERS:
        try:
            made = payload(cosigner.line(text, NOW))
        except Invalid:
            assert not origin or "\n" in origin or len(origin.encode()) > 255
        else:
            assert cosigner.verifier().verify(text, made)


def test_private_keys_are_not_in_the_signers_repr() -> None:
    for cosigner in COSIGNERS:
        raw = cosigner.key.private_bytes_raw()
        assert raw.hex() not in repr(cosigner)
        assert repr(raw) not in repr(cosigner)
