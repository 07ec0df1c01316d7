"""Bundles, signed notes and checkpoints: vectors, corruption, and malformed input."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from folkmoot_core.errors import Invalid
from folkmoot_core.ledger import bundle, checkpoint, note
from folkmoot_core.ledger.checkpoint import Checkpoint
from folkmoot_core.ledger.note import Ed25519Signer

TLOG = Path(__file__).parents[2] / "vectors/tlog"
VECTORS = json.loads((TLOG / "roots.json").read_text())
SIGNER = Ed25519Signer.from_seed(VECTORS["name"], bytes.fromhex(VECTORS["seed"]))
KEY = SIGNER.verifier()
OTHER = Ed25519Signer.from_seed("other.example/log", b"o" * 32)
POINT = Checkpoint(VECTORS["name"], 3, bytes.fromhex(VECTORS["roots"]["3"]))
SIGNED = POINT.sign([SIGNER])


def test_bundle_vector() -> None:
    entries = [b'{"i":%d}' % i + b"x" * i for i in range(3)]
    assert bundle.encode(entries).hex() == VECTORS["bundle_of_size_3"]
    assert bundle.decode(bytes.fromhex(VECTORS["bundle_of_size_3"]), 3) == entries


@given(st.lists(st.binary(max_size=300), max_size=20))
def test_bundles_come_back(entries: list[bytes]) -> None:
    assert bundle.decode(bundle.encode(entries), len(entries)) == entries


@given(st.binary(max_size=200), st.integers(0, 5))
def test_bundle_decoding_raises_our_error_alone(data: bytes, count: int) -> None:
    try:
        entries = bundle.decode(data, count)
    except Invalid:
        return
    assert bundle.encode(entries) == data


def test_a_cut_bundle_and_a_long_entry_are_refused() -> None:
    whole = bundle.encode([b"a" * 10, b"b" * 10])
    for end in set(range(1, len(whole))) - {12}:
        with pytest.raises(Invalid):
            bundle.decode(whole[:end])
    with pytest.raises(Invalid, match="expected 2"):
        bundle.decode(whole[:12], 2)
    with pytest.raises(Invalid, match="65535"):
        bundle.encode([b"x" * 65_536])


def test_key_and_signature_vectors() -> None:
    assert KEY.vkey() == VECTORS["vkey"]
    assert note.parse_vkey(VECTORS["vkey"]) == KEY
    assert note.parse_vkey(VECTORS["spec_vkey"]).vkey() == VECTORS["spec_vkey"]
    assert SIGNED.decode().endswith(f"\n\n— {VECTORS['name']} {VECTORS['signature_of_size_3']}\n")


def test_the_example_of_the_specification_verifies() -> None:
    opened = note.open_note((TLOG / "note.txt").read_bytes(), [note.parse_vkey(VECTORS["spec_vkey"])])
    assert opened.text == "This is an example message.\n"


def test_a_second_spelling_of_a_signature_is_refused() -> None:
    assert SIGNED.endswith(b"Y=\n")  # four bits of padding: Y, Z, a and b decode to the same bytes
    with pytest.raises(Invalid, match="not canonical base64"):
        note.open_note(SIGNED[:-3] + b"Z=\n", [KEY])


def test_all_keys_that_are_asked_for_must_have_signed() -> None:
    both = POINT.sign([SIGNER, OTHER])
    keys = [KEY, OTHER.verifier()]
    assert checkpoint.open_checkpoint(both, keys) == POINT
    for alone in (SIGNER, OTHER):
        with pytest.raises(Invalid, match="lacks the signature"):
            checkpoint.open_checkpoint(POINT.sign([alone]), keys)
    with pytest.raises(Invalid, match="nobody"):
        checkpoint.open_checkpoint(both, [])


def test_a_checkpoint_comes_back_from_its_note() -> None:
    assert checkpoint.open_checkpoint(SIGNED, KEY) == POINT
    assert checkpoint.open_checkpoint(SIGNED, note.parse_vkey(VECTORS["vkey"]), VECTORS["name"]) == POINT


def test_every_changed_byte_of_a_signed_checkpoint_is_refused() -> None:
    for position in range(len(SIGNED)):
        changed = SIGNED[:position] + bytes([SIGNED[position] ^ 1]) + SIGNED[position + 1 :]
        with pytest.raises(Invalid):
            checkpoint.open_checkpoint(changed, KEY)


def test_every_cut_of_a_signed_checkpoint_is_refused() -> None:
    for end in range(len(SIGNED)):
        with pytest.raises(Invalid):
            checkpoint.open_checkpoint(SIGNED[:end], KEY)


def test_lines_of_unknown_keys_are_ignored_and_a_known_one_must_verify() -> None:
    both = POINT.sign([OTHER, SIGNER])
    assert note.open_note(both, [KEY]).signers == (KEY,)
    assert note.open_note(both, [KEY, OTHER.verifier()]).signers == (OTHER.verifier(), KEY)
    with pytest.raises(Invalid, match="none of the known keys"):
        note.open_note(POINT.sign([OTHER]), [KEY])
    stale = POINT.body().encode() + b"\n" + OTHER.line("another text\n").encode() + SIGNER.line(POINT.body()).encode()
    assert note.open_note(stale, [KEY]).text == POINT.body()
    with pytest.raises(Invalid, match=r"other\.example/log does not verify"):
        note.open_note(stale, [KEY, OTHER.verifier()])


def test_another_origin_is_refused() -> None:
    foreign = Checkpoint("somebody.else/log", 3, POINT.root).sign([SIGNER])
    with pytest.raises(Invalid, match="somebody"):
        checkpoint.open_checkpoint(foreign, KEY)
    assert checkpoint.open_checkpoint(foreign, KEY, "somebody.else/log").size == 3


def test_extension_lines_are_kept() -> None:
    extended = Checkpoint(POINT.origin, 3, POINT.root, ("one", "two"))
    assert checkpoint.open_checkpoint(extended.sign([SIGNER]), KEY) == extended


ROOT = base64.b64encode(POINT.root).decode()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "o\n3\n",
        f"o\n03\n{ROOT}\n",
        f"o\n+3\n{ROOT}\n",
        f"o\n٣\n{ROOT}\n",
        f"o\n{2**63}\n{ROOT}\n",
        f"\n3\n{ROOT}\n",
        f"o\n3\n{ROOT}",
        f"o\n3\n{ROOT[:-4]}\n",
        f"o\n3\n{ROOT[:-1]}\n",
        f"o\n3\n {ROOT}\n",
        "o\n3\nü\n",
        f"o\n3\n{ROOT}\n\nx\n",
        "o\n3\n" + ROOT.replace("8=", "9=") + "\n",
    ],
)
def test_malformed_checkpoints_are_refused(text: str) -> None:
    with pytest.raises(Invalid):
        checkpoint.parse(text)


@pytest.mark.parametrize(
    "vkey",
    [
        "",
        "name",
        "name+00000000",
        "+fb61615e+AQOh",
        VECTORS["vkey"][:-4],
        VECTORS["vkey"].replace("fb61615e", "fb61615f"),
        VECTORS["vkey"].replace("+AQ", "+BA"),
        "a b+fb61615e+AQ==",
        VECTORS["vkey"].replace("fb61615e", "FB61615E"),
        "n+1+ü",
    ],
)
def test_malformed_vkeys_are_refused(vkey: str) -> None:
    with pytest.raises(Invalid):
        note.parse_vkey(vkey)


@given(st.binary(max_size=300))
def test_opening_notes_raises_our_error_alone(data: bytes) -> None:
    for attempt in (data, POINT.body().encode() + b"\n" + data, b"text\n\n\xe2\x80\x94 " + data + b"\n"):
        with pytest.raises(Invalid):
            note.open_note(attempt, [KEY])


@given(st.text(max_size=200))
def test_parsing_vkeys_and_checkpoints_raises_our_error_alone(text: str) -> None:
    with pytest.raises(Invalid):
        note.parse_vkey(text)
    with pytest.raises(Invalid):
        checkpoint.parse(text)


@pytest.mark.parametrize("text", ["a\ud800\n", "a\x7f\n", "a\r\n"])
def test_what_no_note_can_hold_is_not_signed(text: str) -> None:
    with pytest.raises(Invalid, match="control"):
        note.sign(text, [SIGNER])
    assert not KEY.verify(text, b"x" * 64)


def test_names_that_no_line_can_carry_are_refused() -> None:
    for name in ("", "a b", "a+b", "a\u00a0b", "a\nb", "a\ud800", "ü" * 128):
        with pytest.raises(Invalid, match="key name"):
            Ed25519Signer.from_seed(name, b"o" * 32)
    with pytest.raises(Invalid, match="line feed"):
        note.parse_lines("")


def test_bounds() -> None:
    with pytest.raises(Invalid, match="at most 1000000"):
        note.open_note(b"x" * 1_000_001, [KEY])
    with pytest.raises(Invalid, match="at most 100"):
        note.open_note(POINT.body().encode() + b"\n" + SIGNER.line(POINT.body()).encode() * 101, [KEY])
    with pytest.raises(Invalid, match="control"):
        note.sign("a\tb\n", [SIGNER])
    with pytest.raises(Invalid, match="line feed"):
        note.sign("a", [SIGNER])
    with pytest.raises(Invalid, match="32 bytes"):
        Ed25519Signer.from_seed("name", b"short")
    with pytest.raises(Invalid, match="too short"):
        note.open_note(b"text\n\n\xe2\x80\x94 name AAAA\n", [KEY])


def test_the_private_key_is_not_in_the_signers_repr() -> None:
    assert bytes.fromhex(VECTORS["seed"]).hex() not in repr(SIGNER)
    assert repr(b"o" * 32) not in repr(OTHER)
