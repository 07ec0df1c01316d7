"""What a witness decides and what a log reads of its answer: each obligation, each refusal, and malformed input."""

from __future__ import annotations

import base64
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from witnessing import IDENTITY, NOW, WITNESS_KEYS, GrowingLog, after

from folkmoot_core.errors import Invalid
from folkmoot_core.ledger import note, rotation, tree, witness
from folkmoot_core.ledger.checkpoint import Checkpoint, open_checkpoint
from folkmoot_core.ledger.note import Ed25519Signer
from folkmoot_core.ledger.tree import EMPTY_ROOT
from folkmoot_core.ledger.witness import Accepted, Behind, Cosignatures, Known, Refused, Rejected, Request

LOG = GrowingLog().grow(20)
FORK = GrowingLog(salt=b"another history ").grow(20)
SIZES = range(21)


def status(decision: Accepted | Rejected) -> int:
    return 200 if isinstance(decision, Accepted) else decision.status


def test_every_growth_from_every_size_is_accepted() -> None:
    for old in SIZES:
        known = after(LOG, old)
        for new in range(old, 21):
            decision = witness.decide(LOG.request(old, new), known)
            assert isinstance(decision, Accepted), (old, new)
            assert (decision.known.size, decision.known.root) == (new, LOG.point(new).root)
            assert decision.text == LOG.point(new).body()


def test_every_growth_of_a_fork_is_refused() -> None:
    for old in SIZES[1:]:
        known = after(LOG, old)
        for new in range(old, 21):
            decision = witness.decide(FORK.request(old, new), known)
            assert isinstance(decision, Rejected)
            assert decision.status == witness.UNPROCESSABLE, (old, new)


def test_an_unknown_log_is_not_found() -> None:  # 1
    assert status(witness.decide(LOG.request(0, 3), None)) == witness.NOT_FOUND
    assert status(witness.decide(LOG.request(0, 3), Known("other", LOG.keys))) == witness.NOT_FOUND


def test_a_checkpoint_without_a_trusted_signature_is_forbidden() -> None:  # 2
    stranger = Ed25519Signer.from_seed(LOG.origin, b"s" * 32)
    assert status(witness.decide(Request(0, (), LOG.point(3).sign([stranger])), LOG.known)) == witness.FORBIDDEN
    both = Request(0, (), LOG.point(3).sign([stranger, LOG.signer]))
    assert status(witness.decide(both, LOG.known)) == witness.OK
    false = Request(0, (), LOG.point(3).sign([LOG.signer]) + LOG.second.line(LOG.point(4).body(), NOW).encode())
    assert status(witness.decide(false, LOG.known)) == witness.FORBIDDEN


def test_either_of_the_logs_keys_is_enough() -> None:
    for signer in (LOG.signer, LOG.second.at(NOW)):
        assert status(witness.decide(Request(0, (), LOG.point(3).sign([signer])), LOG.known)) == witness.OK


def test_an_old_size_above_the_checkpoints_is_a_bad_request() -> None:  # 3
    assert status(witness.decide(LOG.request(4, 3), after(LOG, 4))) == witness.BAD_REQUEST


def test_another_old_size_is_answered_with_the_size_last_cosigned() -> None:  # 4
    for old, new in ((0, 3), (0, 7), (4, 9), (6, 9), (0, 5)):
        decision = witness.decide(LOG.request(old, new), after(LOG, 5))
        assert isinstance(decision, Rejected)
        assert (decision.status, decision.size) == (witness.CONFLICT, 5)
    never = witness.decide(LOG.request(2, 5), LOG.known)
    assert isinstance(never, Rejected)
    assert never.size == 0


def test_the_same_size_with_another_root_is_a_fork_and_both_notes_are_kept() -> None:  # 5
    known = after(LOG, 5)
    decision = witness.decide(FORK.request(5, 5), known)
    assert isinstance(decision, Rejected)
    assert (decision.status, decision.size) == (witness.UNPROCESSABLE, None)
    assert decision.known is not None
    assert replace(decision.known, fork=b"") == known
    assert open_checkpoint(decision.known.fork, LOG.keys) == FORK.point(5)
    again = witness.decide(FORK.request(5, 5), decision.known)
    assert isinstance(again, Rejected)
    assert again.known is None, "the first contradiction is kept"


def test_a_fork_is_kept_even_where_the_old_size_is_stale() -> None:
    decision = witness.decide(FORK.request(0, 5), after(LOG, 5))
    assert isinstance(decision, Rejected)
    assert (decision.status, decision.size) == (witness.CONFLICT, 5)
    assert decision.known is not None


def test_a_false_proof_is_no_evidence_of_a_fork() -> None:  # 6: anybody can send one
    known = after(LOG, 5)
    honest = LOG.request(5, 9)
    flipped = bytes([honest.proof[0][0] ^ 1]) + honest.proof[0][1:]
    for proof in ((), honest.proof[:-1], (flipped, *honest.proof[1:]), (*honest.proof, EMPTY_ROOT)):
        decision = witness.decide(replace(honest, proof=proof), known)
        assert isinstance(decision, Rejected)
        assert (decision.status, decision.known) == (witness.UNPROCESSABLE, None)


def test_the_proof_from_nothing_is_empty_and_an_empty_log_has_the_empty_root() -> None:
    assert status(witness.decide(replace(LOG.request(0, 3), proof=(EMPTY_ROOT,)), LOG.known)) == witness.UNPROCESSABLE
    assert status(witness.decide(LOG.request(0, 0), LOG.known)) == witness.OK
    false = Checkpoint(LOG.origin, 0, tree.leaf_hash(b"")).sign([LOG.signer])
    assert status(witness.decide(Request(0, (), false), LOG.known)) == witness.UNPROCESSABLE


def test_lines_of_others_are_neither_stored_nor_served_again() -> None:
    stranger = Ed25519Signer.from_seed("other.example", b"s" * 32)
    crowded = LOG.signed(3) + b"".join(stranger.line(LOG.point(3).body()).encode() for _ in range(60))
    decision = witness.decide(Request(0, (), crowded), LOG.known)
    assert isinstance(decision, Accepted)
    stored = witness.cosigned(decision, IDENTITY.lines(decision.text, NOW), NOW)
    assert stored.seconds == NOW
    assert open_checkpoint(stored.note, [*LOG.keys, *WITNESS_KEYS]) == LOG.point(3)
    assert len(note.split(stored.note)[1]) == 4


# -- requests -----------------------------------------------------------------------------------------------------------


def test_requests_come_back() -> None:
    for old, new in ((0, 0), (0, 7), (3, 7), (7, 7), (6, 20)):
        request = LOG.request(old, new)
        body = request.encode()
        assert witness.parse_request(body) == request
        assert witness.claim_of(request) == LOG.point(new)
    lines = LOG.request(3, 7).encode().decode().split("\n")
    assert lines[0] == "old 3"
    assert base64.b64decode(lines[1]) == LOG.request(3, 7).proof[0]
    assert lines[lines.index("") + 1] == LOG.origin


SIGNED = LOG.signed(7)
HASH = b"A" * 43 + b"=\n"


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "expected 'old <size>'"),
        (b"old 0\n", "expected 'old <size>'"),
        (b"0\n\n" + SIGNED, "expected 'old <size>'"),
        (b"old 00\n\n" + SIGNED, "expected 'old <size>'"),
        (b"old 01\n\n" + SIGNED, "expected 'old <size>'"),
        (b"old -1\n\n" + SIGNED, "expected 'old <size>'"),
        (b"old  1\n\n" + SIGNED, "expected 'old <size>'"),
        (b"old 9223372036854775808\n\n" + SIGNED, "expected 'old <size>'"),
        (b"old 0\r\n\n" + SIGNED, "expected 'old <size>'"),
        ("old ٣\n\n".encode() + SIGNED, "not ASCII"),
        (b"old 0\nAA\n\n" + SIGNED, "proof line is not base64"),
        (b"old 0\nAA==\n\n" + SIGNED, "1 bytes; expected 32"),
        (b"old 0\n" + HASH.replace(b"A=", b"B=") + b"\n" + SIGNED, "not canonical"),
        (b"old 0\n" + HASH * 64 + b"\n" + SIGNED, "64 proof lines; at most 63"),
        (b"old 0\n\n", "no signatures"),
        (b"old 0\n\n" + LOG.point(7).body().encode(), "no signatures"),
        (b"old 0\n\n" + note.sign("hello\n", [LOG.signer]), "checkpoint: expected lines"),
        (b"old 0\n\n" + b"x" * 20_000, "at most 16384"),
    ],
)
def test_malformed_requests_are_refused(body: bytes, says: str) -> None:
    with pytest.raises(Invalid, match=says):
        witness.parse_request(body)


def test_a_request_that_no_witness_would_read_is_not_sent() -> None:
    for wrong in (Request(-1, (), SIGNED), Request(0, (b"short",), SIGNED), Request(0, (), b"no note")):
        with pytest.raises(Invalid):
            wrong.encode()


@given(st.binary(max_size=200), st.integers(0, 300))
def test_reading_requests_raises_our_error_alone(data: bytes, at: int) -> None:
    whole = LOG.request(3, 7).encode()
    for attempt in (data, b"old 0\n\n" + data, b"old 0\n" + data + b"\n\n" + SIGNED, whole[:at] + data + whole[at + len(data) :]):
        try:
            request = witness.parse_request(attempt)
        except Invalid:
            continue
        assert request.encode() == attempt
        assert status(witness.decide(request, after(LOG, 5))) in (200, 400, 403, 404, 409, 422)


# -- the log's side -----------------------------------------------------------------------------------------------------

TEXT = LOG.point(7).body()
LINES = IDENTITY.lines(TEXT, NOW)


def test_lines_of_expected_keys_are_taken_and_others_ignored() -> None:
    found = witness.read_answer((200, "text/plain", LINES.encode()), TEXT, WITNESS_KEYS)
    assert found == Cosignatures(LINES, WITNESS_KEYS)
    one = witness.read_answer((200, "", LINES.encode()), TEXT, WITNESS_KEYS[1:])
    assert one == Cosignatures(LINES.split("\n", 1)[1], WITNESS_KEYS[1:])
    with pytest.raises(Invalid, match="not UTF-8"):
        witness.read_answer((200, "", b"\xff\n"), TEXT, WITNESS_KEYS)
    with pytest.raises(Invalid, match="no cosignature by"):
        witness.read_answer((200, "", LINES.encode()), TEXT, LOG.keys)


def test_a_false_line_spoils_the_answer() -> None:
    stale = IDENTITY.ed25519.line(LOG.point(6).body(), NOW) + IDENTITY.mldsa.line(TEXT, NOW)
    with pytest.raises(Invalid, match="false cosignature by witness"):
        witness.read_answer((200, "", stale.encode()), TEXT, WITNESS_KEYS)


def test_a_size_means_to_ask_again_and_nothing_else_does() -> None:
    for kind in ("text/x.tlog.size", "text/x.tlog.size; charset=utf-8", "Text/X.Tlog.Size"):
        assert witness.read_answer((409, kind, b"12\n"), TEXT, WITNESS_KEYS) == Behind(12)
    for code, fork in ((409, True), (422, True), (400, False), (403, False), (404, False), (500, False)):
        assert witness.read_answer((code, "text/plain", b"no\n"), TEXT, WITNESS_KEYS) == Refused(code, fork)
    for body in (b"", b"012\n", b"x\n", b"9" * 30, b"1\n2\n"):
        with pytest.raises(Invalid, match="expected a size"):
            witness.read_answer((409, "text/x.tlog.size", body), TEXT, WITNESS_KEYS)


@given(st.integers(100, 599), st.sampled_from(["", "text/plain", "text/x.tlog.size"]), st.binary(max_size=200))
def test_reading_answers_raises_our_error_alone(code: int, kind: str, body: bytes) -> None:
    for attempt in (body, LINES.encode() + body):
        try:
            found = witness.read_answer((code, kind, attempt), TEXT, WITNESS_KEYS)
        except Invalid:
            continue
        assert isinstance(found, Behind | Refused | Cosignatures)
    with pytest.raises(Invalid, match="at most 65536"):
        witness.read_answer((code, kind, b"x" * 70_000), TEXT, WITNESS_KEYS)


# -- keys and their rotation ------------------------------------------------------------------------------------------------

NEW = GrowingLog(seed=b"n" * 32)
ROTATION = rotation.make(LOG.signer, NEW.signer, NEW.keys)


def test_a_known_log_changes_its_keys_by_a_note_of_both() -> None:
    assert witness.admit(None, LOG.origin, LOG.keys) == LOG.known
    known = after(LOG, 5)
    assert witness.admit(known, LOG.origin, LOG.keys) is known
    assert witness.admit(known, LOG.origin, NEW.keys, ROTATION) == replace(known, keys=NEW.keys)
    assert rotation.verify(ROTATION, LOG.keys[0]) == NEW.keys
    with pytest.raises(Invalid, match="known with other keys"):
        witness.admit(known, LOG.origin, NEW.keys)
    with pytest.raises(Invalid, match="other keys than those asked for"):
        witness.admit(known, LOG.origin, NEW.keys[:1], ROTATION)


def test_after_a_rotation_the_old_key_counts_for_nothing() -> None:
    known = witness.admit(after(LOG, 5), LOG.origin, NEW.keys, ROTATION)
    assert status(witness.decide(LOG.request(5, 7), known)) == witness.FORBIDDEN
    renewed = replace(LOG.request(5, 7), checkpoint=LOG.point(7).sign([NEW.signer, NEW.second.at(NOW)]))
    assert status(witness.decide(renewed, known)) == witness.OK
    with pytest.raises(Invalid, match="other keys than those asked for"):
        witness.admit(known, LOG.origin, LOG.keys, ROTATION)


def test_a_second_key_joins_by_a_note_of_the_first() -> None:
    alone = Known(LOG.origin, LOG.keys[:1])
    joined = rotation.make(LOG.signer, LOG.signer, LOG.keys)
    assert len(note.split(joined)[1]) == 1
    assert witness.admit(alone, LOG.origin, LOG.keys, joined).keys == LOG.keys


def text_of(*vkeys: str, origin: str = LOG.origin, header: str = rotation.HEADER) -> str:
    return "\n".join([header, origin, *vkeys]) + "\n"


VKEYS = tuple(key.vkey() for key in NEW.keys)
BOTH = (LOG.signer, NEW.signer)


@pytest.mark.parametrize(
    ("text", "signers", "says"),
    [
        (text_of(*VKEYS), (LOG.signer,), "not signed by the new key"),
        (text_of(*VKEYS), (NEW.signer,), "not signed by the key in force"),
        (text_of(*VKEYS), (Ed25519Signer.from_seed(LOG.origin, b"s" * 32),), "none of the known keys"),
        (text_of(*VKEYS, header="folkmoot/rotation/v2"), BOTH, "expected the lines"),
        (text_of(), BOTH, "expected the lines"),
        ("\n\n", BOTH, "expected the lines"),
        (text_of(VKEYS[1]), BOTH, "exactly one Ed25519 key"),
        (text_of(VKEYS[0], VKEYS[0]), BOTH, "exactly one Ed25519 key"),
        (text_of(*VKEYS, VKEYS[1]), BOTH, "no key twice"),
        (text_of(*VKEYS, *VKEYS, VKEYS[1]), BOTH, "1 to 4 vkeys"),
        (text_of(*VKEYS, origin="other"), BOTH, "under its name"),
        (text_of(*VKEYS, WITNESS_KEYS[0].vkey()), BOTH, "under its name"),
        (text_of("nonsense"), BOTH, "key"),
    ],
)
def test_a_rotation_that_proves_nothing_is_refused(text: str, signers: tuple[Ed25519Signer, ...], says: str) -> None:
    with pytest.raises(Invalid, match=says):
        rotation.verify(note.sign(text, signers), LOG.keys[0])


def test_a_rotation_of_another_log_is_refused() -> None:
    old, new = (GrowingLog(origin="folkmoot/other", seed=seed) for seed in (b"o" * 32, b"n" * 32))
    made = rotation.make(old.signer, new.signer, new.keys)
    assert rotation.verify(made, old.keys[0]) == new.keys
    with pytest.raises(Invalid, match="not signed by the key in force of folkmoot/log"):
        rotation.verify(made, LOG.keys[0])
    with pytest.raises(Invalid, match="at most 16384"):
        rotation.verify(b"x" * 20_000, LOG.keys[0])


def test_a_rotation_that_would_not_verify_is_not_made() -> None:
    with pytest.raises(Invalid, match="not among the new keys"):
        rotation.make(LOG.signer, NEW.signer, LOG.keys)
    with pytest.raises(Invalid, match="1 to 4 vkeys"):
        rotation.check_keys(LOG.origin, [])


@given(st.binary(max_size=200), st.integers(0, 400))
def test_reading_rotations_raises_our_error_alone(data: bytes, at: int) -> None:
    for attempt in (data, ROTATION[:at] + data + ROTATION[at:]):
        try:
            found = rotation.verify(attempt, LOG.keys[0])
        except Invalid:
            continue
        assert found == NEW.keys
