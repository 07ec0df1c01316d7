"""tlog-policy and tlog-proof: what is read, what is refused and on which line, and what a policy believes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from folkmoot_core.errors import Invalid
from folkmoot_core.ledger import policy, proof, tree
from folkmoot_core.ledger.checkpoint import Checkpoint
from folkmoot_core.ledger.cosignature import Ed25519Cosigner, MlDsaSigner
from folkmoot_core.ledger.note import Ed25519Signer, Signer, VerifierKey
from folkmoot_core.ledger.policy import Group, Log, Policy, Witness
from folkmoot_core.ledger.proof import TlogProof

NOW = 1_800_000_000
ORIGIN = "folkmoot/log"
LOG, LOG_PQ = Ed25519Signer.from_seed(ORIGIN, b"l" * 32), MlDsaSigner.from_seed(ORIGIN, b"m" * 32)
OTHER_LOG = Ed25519Signer.from_seed("folkmoot/other", b"n" * 32)
W = [Ed25519Cosigner.from_seed(f"w{i}.example", bytes([i]) * 32) for i in range(1, 6)]
W_PQ = MlDsaSigner.from_seed("w9.example", b"9" * 32)
LEAVES = [tree.leaf_hash(b"%d" % i) for i in range(7)]
POINT = Checkpoint(ORIGIN, 7, tree.root_of(LEAVES))
LINES = {
    "log": f"log {LOG.verifier().vkey()} https://log.example/",
    "log_pq": f"log {LOG_PQ.verifier().vkey()}",
    "X1": f"witness X1 {W[0].verifier().vkey()} https://w1.example/",
    "X2": f"witness X2 {W[1].verifier().vkey()}",
    "X3": f"witness X3 {W[2].verifier().vkey()}",
    "Y1": f"witness Y1 {W[3].verifier().vkey()}",
    "Y2": f"witness Y2 {W_PQ.verifier().vkey()}",
}
EXAMPLE = "\n".join(
    [
        "# two organisations",
        *LINES.values(),
        "group X-witnesses 2 X1 X2 X3",
        "",
        "\tgroup  Y-witnesses\tany Y1 Y2 ",
        "group X-and-Y all X-witnesses Y-witnesses",
        "  # ends here",
        "quorum X-and-Y",
        "",
    ]
)


def signed(*cosigners: Ed25519Cosigner | MlDsaSigner, log: Signer = LOG, point: Checkpoint = POINT) -> bytes:
    return point.sign([log, *(one.at(NOW) for one in cosigners)])


def key(signer: Ed25519Signer | Ed25519Cosigner | MlDsaSigner) -> VerifierKey:
    return signer.verifier()


def test_the_specifications_example_is_read_and_comes_back() -> None:
    found = policy.parse(EXAMPLE)
    assert [log.key for log in found.logs] == [key(LOG), key(LOG_PQ)]
    assert found.logs[0].url == "https://log.example/"
    assert found.witnesses[0] == Witness("X1", key(W[0]), "https://w1.example/")
    assert found.groups == (
        Group("X-witnesses", 2, ("X1", "X2", "X3")),
        Group("Y-witnesses", 1, ("Y1", "Y2")),
        Group("X-and-Y", 2, ("X-witnesses", "Y-witnesses")),
    )
    assert policy.parse(found.text()) == found


@pytest.mark.parametrize(
    ("cosigners", "enough"),
    [
        ((), False),
        ((W[0],), False),
        ((W[0], W[1]), False),
        ((W[0], W[3]), False),
        ((W[0], W[2], W[3]), True),
        ((W[1], W[2], W_PQ), True),
        ((W[0], W[0], W[3]), False),
        ((W[0], W[4], W[3]), False),
        ((W[0], W[1], W[2], W[3], W_PQ), True),
    ],
)
def test_a_quorum_of_groups(cosigners: tuple[Ed25519Cosigner | MlDsaSigner, ...], enough: bool) -> None:
    found = policy.parse(EXAMPLE)
    if enough:
        assert found.check(signed(*cosigners)) == POINT
    else:
        with pytest.raises(Invalid, match="quorum is 'X-and-Y'"):
            found.check(signed(*cosigners))


def test_any_listed_log_is_believed_and_no_other() -> None:
    found = Policy(logs=(Log(key(LOG)), Log(key(LOG_PQ))))
    assert found.check(signed()) == POINT
    assert found.check(POINT.sign([LOG_PQ.at(NOW)])) == POINT
    with pytest.raises(Invalid, match="none of the known keys"):
        found.check(signed(log=OTHER_LOG))


def test_a_log_is_believed_about_itself_alone() -> None:
    found = Policy(logs=(Log(key(LOG)), Log(key(OTHER_LOG))))
    assert found.check(signed()) == POINT
    with pytest.raises(Invalid, match="not signed by a log of the policy"):
        found.check(signed(log=OTHER_LOG))


def test_cosignatures_alone_make_no_checkpoint() -> None:
    found = Policy(logs=(Log(key(LOG)),), witnesses=(Witness("w", key(W[0])),), quorum="w")
    with pytest.raises(Invalid, match="not signed by a log"):
        found.check(POINT.sign([W[0].at(NOW)]))
    with pytest.raises(Invalid, match=r"not signed by a log of the policy \(none\)"):
        Policy(witnesses=found.witnesses, quorum="w").check(signed(W[0]))


def test_a_false_line_of_a_listed_witness_refuses_even_without_need_of_it() -> None:
    found = Policy(logs=(Log(key(LOG)),), witnesses=(Witness("w", key(W[0])),))
    other = Checkpoint(ORIGIN, 8, POINT.root)
    with pytest.raises(Invalid, match="does not verify"):
        found.check(signed() + W[0].line(other.body(), NOW).encode())


def test_a_signed_text_that_is_no_checkpoint_is_refused() -> None:
    from folkmoot_core.ledger import note

    with pytest.raises(Invalid, match="checkpoint: expected lines"):
        Policy(logs=(Log(key(LOG)),)).check(note.sign("hello\n", [LOG]))


def vkey(signer: Ed25519Signer | Ed25519Cosigner | MlDsaSigner, name: str | None = None) -> str:
    found = signer.verifier()
    return VerifierKey(name or found.name, found.public, found.algorithm).vkey()


@pytest.mark.parametrize(
    ("lines", "line", "says"),
    [
        (["log"], 1, "expected 'log <vkey>"),
        (["log a b c d"], 1, "expected 'log <vkey>"),
        (["frob x"], 1, "found 'frob x'"),
        (["quorum"], 1, "expected"),
        (["quorum a b"], 1, "expected"),
        (["LOG x"], 1, "expected"),
        ([LINES["log"], "log nonsense"], 2, "key is not base64|expected a key"),
        ([f"log {vkey(W[0])}"], 1, "a log's key is of type 01 or 06"),
        ([f"witness w {vkey(LOG)}"], 1, "a witness's key is of type 04 or 06"),
        ([LINES["log"], LINES["log"]], 2, "listed already"),
        ([LINES["X1"], f"witness again {vkey(W[0])}"], 2, "listed already"),
        ([LINES["X1"], f"witness again {vkey(W[0], 'renamed.example')}"], 2, "listed already"),
        ([LINES["log_pq"], f"witness self {vkey(LOG_PQ)}"], 2, "listed already"),
        ([LINES["X1"], f"witness X1 {vkey(W[1])}"], 2, "'X1' is defined already"),
        ([f"witness none {vkey(W[1])}"], 1, "'none' is reserved"),
        ([LINES["X1"], "group g all"], 2, "expected"),
        ([LINES["X1"], "group g all X2"], 2, "neither a witness nor a group"),
        ([LINES["X1"], "group g all none"], 2, "neither a witness nor a group"),
        ([LINES["X1"], "group g any g"], 2, "neither a witness nor a group"),
        ([LINES["X1"], "group X1 any X1"], 2, "defined already"),
        ([LINES["X1"], "group none any X1"], 2, "reserved"),
        ([LINES["X1"], "group g any X1 X1"], 2, "count twice"),
        ([LINES["X1"], "group g any X1", "group h any X1"], 3, "count twice"),
        ([LINES["X1"], "group g 0 X1"], 2, "number from 1 to 1"),
        ([LINES["X1"], "group g 2 X1"], 2, "number from 1 to 1"),
        ([LINES["X1"], "group g 01 X1"], 2, "number from 1 to 1"),
        ([LINES["X1"], "group g ALL X1"], 2, "number from 1 to 1"),
        ([LINES["X1"], "group g ١ X1"], 2, "number from 1 to 1"),
        (["quorum X1", LINES["X1"]], 1, "'X1' is neither"),
        (["quorum none", "quorum none"], 2, "a second quorum"),
        (["quorum none\r"], 1, "control"),
        (["quorum\u00a0none"], 1, "expected"),
    ],
)
def test_what_is_refused_and_where(lines: list[str], line: int, says: str) -> None:
    with pytest.raises(Invalid, match=f"^policy, line {line}: .*({says})"):
        policy.parse("\n".join(lines) + "\n")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no quorum line"),
        (LINES["log"] + "\n", "no quorum line"),
        ("quorum none", "cut off"),
        ("#" * 600_000 + "\nquorum none\n", "at most 524288"),
    ],
)
def test_a_policy_without_quorum_without_end_or_without_bound_is_refused(text: str, says: str) -> None:
    with pytest.raises(Invalid, match=says):
        policy.parse(text)


def test_numbers_of_lines_are_bounded_and_32_are_read() -> None:
    def witnesses(count: int) -> str:
        made = (Ed25519Cosigner.from_seed("w", i.to_bytes(32, "big")).verifier().vkey() for i in range(count))
        return "".join(f"witness w{i} {one}\n" for i, one in enumerate(made)) + "quorum none\n"

    assert len(policy.parse(witnesses(32)).witnesses) == 32
    with pytest.raises(Invalid, match="line 65: more than 64 witness lines"):
        policy.parse(witnesses(65))


def test_a_policy_that_nobody_could_read_is_not_written() -> None:
    for wrong in (Policy(quorum="w"), Policy(witnesses=(Witness("a b", key(W[0])),)), Policy(logs=(Log(key(W[0])),))):
        with pytest.raises(Invalid):
            wrong.text()


FRAGMENTS = st.sampled_from(
    [*EXAMPLE.split("\n"), "quorum none", "group g", "group g 1 X1", "witness", "log x", "\t", "#", "é \x00"]
)


@given(st.lists(FRAGMENTS | st.text(max_size=30), max_size=12))
def test_reading_policies_raises_our_error_alone_and_what_is_read_comes_back(lines: list[str]) -> None:
    try:
        found = policy.parse("\n".join(lines) + "\n")
    except Invalid:
        return
    assert policy.parse(found.text()) == found


# -- proofs -------------------------------------------------------------------------------------------------------------

QUORATE = Policy(logs=(Log(key(LOG)),), witnesses=(Witness("w", key(W[0])),), quorum="w")
CHECKPOINT = signed(W[0], W_PQ)


def proof_of(index: int, extra: bytes = b"") -> TlogProof:
    return TlogProof(index, tuple(tree.inclusion_proof(index, 7, tree.nodes_of(LEAVES))), CHECKPOINT, extra)


def test_every_leaf_is_proved_by_its_own_proof_alone() -> None:
    for index, leaf in enumerate(LEAVES):
        text = proof_of(index, b"salt" * index).encode()
        found = proof.parse(text)
        assert found == proof_of(index, b"salt" * index)
        assert found.encode() == text
        assert proof.verify(found, leaf, QUORATE) == POINT
        with pytest.raises(Invalid, match="does not lead to the root"):
            proof.verify(found, LEAVES[index - 1], QUORATE)


def test_the_text_of_a_proof() -> None:
    lines = proof_of(2, b"\x01\x02").encode().decode().split("\n")
    assert lines[:3] == ["c2sp.org/tlog-proof@v1", "extra AQI=", "index 2"]
    assert lines[6:8] == ["", ORIGIN]
    assert proof_of(2).encode().startswith(b"c2sp.org/tlog-proof@v1\nindex 2\n")
    alone = TlogProof(0, (), Checkpoint(ORIGIN, 1, LEAVES[0]).sign([LOG, W[0].at(NOW)]))
    assert proof.verify(proof.parse(alone.encode()), LEAVES[0], QUORATE).size == 1


def test_a_proof_needs_the_policys_quorum() -> None:
    unseen = TlogProof(1, proof_of(1).hashes, signed())
    with pytest.raises(Invalid, match="no witness of the policy"):
        proof.verify(unseen, LEAVES[1], QUORATE)


def test_every_changed_byte_of_a_proof_is_refused() -> None:
    short = TlogProof(3, proof_of(3).hashes, signed(W[0]))  # without the line that this policy does not know
    text = short.encode()
    for position in range(len(text)):
        changed = text[:position] + bytes([text[position] ^ 1]) + text[position + 1 :]
        with pytest.raises(Invalid):
            proof.verify(proof.parse(changed), LEAVES[3], QUORATE)
    for end in range(len(text)):
        with pytest.raises(Invalid):
            proof.verify(proof.parse(text[:end]), LEAVES[3], QUORATE)


TOP = b"c2sp.org/tlog-proof@v1\n"
HASH = b"A" * 43 + b"=\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"", "expected the line"),
        (TOP + b"index 0\n", "expected the line"),
        (b"c2sp.org/tlog-proof@v2\nindex 0\n\n" + CHECKPOINT, "expected the line"),
        (TOP + b"\n" + CHECKPOINT, "expected 'index'"),
        (TOP + b"index 01\n\n" + CHECKPOINT, "expected 'index'"),
        (TOP + b"index -1\n\n" + CHECKPOINT, "expected 'index'"),
        (TOP + b"index 9999999999999999999\n\n" + CHECKPOINT, "expected 'index'|is not from 0"),
        (TOP + b"index  0\n\n" + CHECKPOINT, "expected 'index'"),
        (TOP + b"extra \nindex 0\n\n" + CHECKPOINT, "without data"),
        (TOP + b"extra AQI\nindex 0\n\n" + CHECKPOINT, "extra data is not base64"),
        (TOP + b"extra AQJ=\nindex 0\n\n" + CHECKPOINT, "extra data is not canonical"),
        (TOP + b"index 0\nextra AQI=\n\n" + CHECKPOINT, "a hash is not base64"),
        (TOP + b"extra AQI=\nextra AQI=\nindex 0\n\n" + CHECKPOINT, "expected 'index'"),
        (TOP + b"index 0\nAQI=\n\n" + CHECKPOINT, "hashes of 32 bytes"),
        (TOP + b"index 0\n" + HASH * 64 + b"\n" + CHECKPOINT, "64 hashes; at most 63"),
        (TOP + b"index 0\r\n\n" + CHECKPOINT, "expected 'index'"),
        (TOP + b"index 0\n" + "ü".encode() + b"\n\n" + CHECKPOINT, "not ASCII"),
        (TOP + b"index 0\n\n", "no signatures"),
        (TOP + b"index 0\n\n" + POINT.body().encode(), "no signatures"),
        (TOP + b"extra " + b"AAAA" * 22_000 + b"\nindex 0\n\n" + CHECKPOINT, "at most 65536"),
        (b"x" * 1_200_000, "at most"),
    ],
)
def test_malformed_proofs_are_refused(text: bytes, says: str) -> None:
    with pytest.raises(Invalid, match=says):
        proof.parse(text)


def test_a_proof_that_nobody_could_read_is_not_written() -> None:
    for wrong in (
        TlogProof(-1, (), CHECKPOINT),
        TlogProof(2**63, (), CHECKPOINT),
        TlogProof(0, (b"short",), CHECKPOINT),
        TlogProof(0, (LEAVES[0],) * 64, CHECKPOINT),
        TlogProof(0, (), b"no note"),
        TlogProof(0, (), CHECKPOINT, b"x" * 70_000),
    ):
        with pytest.raises(Invalid):
            wrong.encode()


@given(st.binary(max_size=200), st.integers(0, 400))
def test_reading_proofs_raises_our_error_alone(data: bytes, at: int) -> None:
    whole = proof_of(4, b"extra").encode()
    for attempt in (data, TOP + data, TOP + b"index 0\n" + data, whole[:at] + data + whole[at + len(data) :]):
        try:
            found = proof.parse(attempt)
        except Invalid:
            continue
        assert found.encode() == attempt


@given(st.integers(0, 2**63 - 1), st.lists(st.binary(min_size=32, max_size=32), max_size=63), st.binary(max_size=100))
def test_proofs_come_back(index: int, hashes: list[bytes], extra: bytes) -> None:
    made = TlogProof(index, tuple(hashes), CHECKPOINT, extra)
    assert proof.parse(made.encode()) == made
