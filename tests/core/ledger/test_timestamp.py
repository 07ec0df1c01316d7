"""Tokens that are to be believed are, and each way to be bad has its own sentence. ledger.md §3.3, §3.4."""

from __future__ import annotations

import dataclasses
import random
import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import rfc3161ng
import timestamps
from cryptography.x509.oid import ExtendedKeyUsageOID as Usage
from hypothesis import given, settings
from hypothesis import strategies as st
from rfc3161_client import VerifierBuilder, decode_timestamp_response
from timestamps import DATA, NONCE, NOW, Leaf

from folkmoot_core.errors import Invalid
from folkmoot_core.ledger import timestamp, tsa

HONEST = timestamps.forger()
PINNED = timestamps.pinned(HONEST)


def check(
    response: bytes, authority: timestamp.Authority = PINNED, data: bytes = DATA, nonce: int | None = NONCE
) -> timestamp.Token:
    return timestamp.verify(response, data, authority, nonce)


@pytest.mark.parametrize("signing_key", [timestamps.key(2), timestamps.rsa_key()], ids=["ecdsa", "rsa"])
@pytest.mark.parametrize("whole_chain", [False, True])
def test_an_honest_token_is_believed(signing_key: Any, whole_chain: bool):
    signer = dataclasses.replace(timestamps.forger(leaf_key=signing_key), whole_chain=whole_chain)
    token = check(timestamps.respond(signer), timestamps.pinned(signer, tsa.POLICY))
    assert (token.gen_time, token.serial, token.policy, token.nonce) == (NOW, 4711, tsa.POLICY, NONCE)
    assert (token.accuracy, token.signer, token.repaired) == (timedelta(seconds=1), "CN=Honest authority", False)


def test_a_token_without_certificates_is_checked_with_the_pinned_one():
    asked = rfc3161ng.make_timestamp_request(digest=timestamp.imprint(DATA), hashname="sha256", nonce=NONCE)
    response = timestamps.respond(HONEST, rfc3161ng.encode_timestamp_request(asked))
    assert HONEST.chain[0].signature not in response
    assert check(response).gen_time == NOW


def test_an_intermediate_is_part_of_what_is_pinned():
    root = timestamps.certificate_authority(1, "Honest root")
    middle = timestamps.certificate_authority(5, "Middle", 1, "Honest root")
    own = timestamps.leaf(timestamps.key(2).public_key(), timestamps.key(5), Leaf(issuer="Middle"))
    signer = timestamps.Forger(timestamps.key(2), (own, middle, root), whole_chain=True)
    assert check(timestamps.respond(signer), timestamps.read_pinned((own, middle, root))).gen_time == NOW
    with pytest.raises(Invalid, match="does not lead to the pinned root"):
        check(timestamps.respond(signer), timestamp.Authority("acme", (own, root)))


def test_a_token_stays_good_after_the_certificate_has_expired():
    signer = timestamps.forger(Leaf(end=NOW + timedelta(seconds=1)))
    assert check(timestamps.respond(signer), timestamps.pinned(signer)).gen_time == NOW


def test_a_set_out_of_order_is_put_in_order_first():
    signer = dataclasses.replace(HONEST, whole_chain=True)
    raw = timestamps.unsorted(timestamps.respond(signer))
    with pytest.raises(ValueError, match="InvalidSetOrdering"):
        decode_timestamp_response(raw)
    assert check(raw).repaired


def test_who_has_no_query_checks_all_but_the_nonce():
    assert check(timestamps.respond(HONEST), nonce=None).nonce == NONCE


def test_an_authority_that_claims_no_accuracy_is_not_given_one():
    assert check(timestamps.token_over(HONEST, {"accuracy": None})).accuracy is None
    fine = {"millis": 500, "micros": 20}
    assert check(timestamps.token_over(HONEST, {"accuracy": fine})).accuracy == timedelta(milliseconds=500, microseconds=20)


# -- the table of bad tokens ----------------------------------------------------------------------------------------


def rejected() -> bytes:
    return tsa.rejection("unaccepted_policy", "no")


def with_mods() -> bytes:
    return timestamps.changed(timestamps.respond(HONEST), lambda r: r["status"].__setitem__("status", "granted_with_mods"))


def other_leaf() -> bytes:
    return timestamps.respond(timestamps.forger(Leaf(serial=78), timestamps.key(3)))


def without_certificates(signer: Any) -> bytes:
    asked = rfc3161ng.make_timestamp_request(digest=timestamp.imprint(DATA), hashname="sha256", nonce=NONCE)
    return timestamps.respond(signer, rfc3161ng.encode_timestamp_request(asked))


def embeds(signer: Any, *chain: Any) -> bytes:
    return timestamps.token_over(signer, {}, chain)


def without_a_token() -> bytes:
    return timestamps.changed(rejected(), lambda r: r.__setitem__("status", {"status": "granted"}))


def of_another_type() -> bytes:
    def change(response: Any) -> None:
        response["time_stamp_token"]["content"]["encap_content_info"] = {"content_type": "data", "content": b"hello"}

    return timestamps.changed(timestamps.respond(HONEST), change)


def of_two_signers() -> bytes:
    def change(response: Any) -> None:
        infos = response["time_stamp_token"]["content"]["signer_infos"]
        infos.append(infos[0].copy())

    return timestamps.changed(timestamps.respond(HONEST), change)


def naming_nobody() -> bytes:
    def change(response: Any) -> None:
        info = response["time_stamp_token"]["content"]["signer_infos"][0]
        info["signed_attrs"] = [each for each in info["signed_attrs"] if each["type"].native != "signing_certificate_v2"]

    return timestamps.changed(timestamps.respond(HONEST), change)


def signature_of_another_token() -> bytes:
    other = timestamps.respond(HONEST, serial=4712)

    def change(response: Any) -> None:
        foreign = type(response).load(other)["time_stamp_token"]["content"]["signer_infos"][0]["signature"].native
        response["time_stamp_token"]["content"]["signer_infos"][0]["signature"] = foreign

    return timestamps.changed(timestamps.respond(HONEST), change)


def info_replaced() -> bytes:
    """Another TSTInfo below the honest signed attributes: their messageDigest does not fit."""
    return timestamps.respond(HONEST).replace(b"20261127", b"20261126")


def timed(text: bytes) -> bytes:
    """An honest answer with another time in it; what is no time is refused before any signature is looked at."""
    return timestamps.respond(HONEST).replace(b"20261127120000Z", text)


BAD: dict[str, tuple[Callable[[], bytes], str, str]] = {
    "rejected": (rejected, "TokenRejected", "answered rejection (unaccepted_policy)"),
    "granted with modifications": (with_mods, "GrantedWithMods", "granted with modifications"),
    "year 0": (lambda: timed(b"00000101000000Z"), "NotAToken", "its time is not one in UTC"),
    "local time": (lambda: timed(b"202611271200.00"), "NotAToken", "its time is not one in UTC"),
    "policy without end": (lambda: timestamps.token_over(HONEST, {"policy": "1.2" + ".1" * 100}), "NotAToken", "not strict DER"),
    "other nonce": (
        lambda: timestamps.respond(HONEST, timestamps.query(nonce=NONCE - 1)),
        "WrongNonce",
        "nonce is not the query's",
    ),
    "no nonce": (lambda: timestamps.token_over(HONEST, {"nonce": None}), "WrongNonce", "nonce is not the query's"),
    "other data": (lambda: timestamps.respond(HONEST, timestamps.query(b"other")), "OtherData", "over other data"),
    "other hash": (
        lambda: timestamps.token_over(
            HONEST, {"message_imprint": {"hash_algorithm": {"algorithm": "sha512"}, "hashed_message": b"\0" * 64}}
        ),
        "OtherData",
        "SHA-256 expected",
    ),
    "other leaf of the same root": (other_leaf, "OtherSigner", "another certificate than the pinned one"),
    "rogue with its own root embedded": (lambda: timestamps.respond(timestamps.rogue()), "OtherSigner", "another certificate"),
    "rogue with the honest names, leaf embedded": (
        lambda: timestamps.respond(timestamps.mimic()),
        "OtherSigner",
        "only pinned ones",
    ),
    "rogue with the honest names, nothing embedded": (
        lambda: without_certificates(timestamps.mimic()),
        "OtherSigner",
        "the signature names is not the pinned one",
    ),
    "rogue with the honest names, honest leaf beside its own": (
        lambda: embeds(timestamps.mimic(), HONEST.chain[0], *timestamps.mimic().chain),
        "OtherSigner",
        "the signature names is not the pinned one",
    ),
    "rogue's key, honest certificate": (
        lambda: timestamps.token_over(timestamps.Forger(timestamps.key(12), HONEST.chain), {}),
        "BadSignature",
        "does not verify",
    ),
    "no certificate named": (naming_nobody, "OtherSigner", "does not name its certificate"),
    "signature of another token": (signature_of_another_token, "BadSignature", "does not verify"),
    "time changed": (info_replaced, "BadSignature", "does not verify"),
    "granted without a token": (without_a_token, "NotAToken", "no signed token"),
    "content of another type": (of_another_type, "NotAToken", "not a TSTInfo"),
    "two signers": (of_two_signers, "NotAToken", "2 signers"),
    "empty": (lambda: b"", "NotAToken", "not the DER"),
    "a web page": (lambda: b"<!doctype html><title>502 Bad Gateway</title>", "NotAToken", "not the DER"),
    "cut short": (lambda: timestamps.respond(HONEST)[:-1], "NotAToken", "not the DER"),
    "with a tail": (lambda: timestamps.respond(HONEST) + b"\0", "NotAToken", "not the DER"),
    "too large": (lambda: b"\0" * (timestamp.MAX_RESPONSE + 1), "TokenTooLarge", "at most 65536"),
}


@pytest.mark.parametrize("name", sorted(BAD))
def test_a_bad_token_is_refused_with_its_own_sentence(name: str):
    make, reason, sentence = BAD[name]
    with pytest.raises(Invalid, match=re.escape(sentence)) as refused:
        check(make())
    assert refused.value.reason == reason
    assert refused.value.message.startswith("timestamp of acme: ")


def test_a_token_under_another_policy_is_refused_where_one_is_pinned():
    with pytest.raises(Invalid, match=r"under policy 2\.25\.\d+; expected 1\.2\.3") as refused:
        check(timestamps.respond(HONEST), timestamps.pinned(HONEST, "1.2.3"))
    assert refused.value.reason == "WrongPolicy"


PURPOSES = {
    "of a web server": (Leaf(usages=(Usage.SERVER_AUTH,)), "not for timestamps alone"),
    "of timestamps and more": (Leaf(usages=(Usage.TIME_STAMPING, Usage.CODE_SIGNING)), "not for timestamps alone"),
    "not critical": (Leaf(critical=False), "not as critical"),
    "none": (Leaf(usages=()), "no extended key usage"),
}


@pytest.mark.parametrize("name", sorted(PURPOSES))
def test_a_certificate_with_the_wrong_purpose_is_refused_pinned_or_not(name: str):
    how, sentence = PURPOSES[name]
    signer = timestamps.forger(how)
    for attempt, says in (
        (lambda: check(timestamps.token_over(signer, {}), timestamps.pinned(signer)), sentence),
        (lambda: timestamp.read_authority("acme", timestamps.pem(signer.chain)), sentence),
        (lambda: tsa.Signer(signer.key, signer.chain), "critical and alone"),
    ):
        with pytest.raises(Invalid, match=says):
            attempt()


@pytest.mark.parametrize(
    "how", [Leaf(end=NOW - timedelta(seconds=1)), Leaf(start=NOW + timedelta(seconds=1))], ids=["expired", "not yet valid"]
)
def test_a_certificate_that_was_not_valid_at_the_tokens_time_is_refused(how: Leaf):
    signer = timestamps.forger(how)
    with pytest.raises(Invalid, match="its certificate was not valid at the token's time 2026-11-27T12:00:00Z") as refused:
        check(timestamps.token_over(signer, {}), timestamps.pinned(signer))
    assert refused.value.reason == "CertificateExpired"


def test_a_chain_to_another_root_than_the_pinned_one_is_refused():
    for root in (timestamps.certificate_authority(13, "Rogue root"), timestamps.certificate_authority(11, "Honest root")):
        with pytest.raises(Invalid, match="does not lead to the pinned root") as refused:
            check(timestamps.respond(HONEST), timestamp.Authority("acme", (HONEST.chain[0], root)))
        assert refused.value.reason == "UntrustedChain"


def test_a_leaf_is_no_issuer():
    below = timestamps.leaf(timestamps.key(4).public_key(), timestamps.key(2), Leaf(issuer="Honest authority"))
    for chain in ((below, HONEST.chain[0], HONEST.chain[1]), (below, HONEST.chain[0])):
        with pytest.raises(Invalid, match=r"does not lead|may not issue"):
            timestamp.read_authority("acme", timestamps.pem(chain))


def test_the_library_itself_no_longer_trusts_a_root_that_the_token_brings():
    """rfc3161-client up to 1.0.8 accepted this (ledger.md §3.3): should it come back, pinning the leaf still refuses it."""
    response = decode_timestamp_response(timestamps.respond(timestamps.rogue()))
    alone = VerifierBuilder().add_root_certificate(HONEST.chain[1]).build()
    with pytest.raises(Exception, match="Error while verifying certificates"):
        alone.verify_message(response, DATA)


# -- what is pinned, and queries ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "policy", "sentence"),
    [
        ("../evil", timestamps.pem(HONEST.chain), "", "DNS label"),
        ("acme", "nothing", "", "not readable PEM"),
        ("acme", timestamps.pem(HONEST.chain[:1]), "", "1 certificates; expected"),
        ("acme", timestamps.pem(HONEST.chain) * 5, "", "10 certificates; expected"),
        ("acme", " " * 70_000, "", "at most 65536"),
        ("acme", timestamps.pem(HONEST.chain), "some policy", "not an object identifier"),
        ("acme", timestamps.pem(HONEST.chain), "1.99", "not an object identifier"),
        ("acme", timestamps.pem(HONEST.chain[::-1]), "", "no extended key usage"),
    ],
)
def test_what_cannot_be_pinned_is_refused(name: str, text: str, policy: str, sentence: str):
    with pytest.raises(Invalid, match=re.escape(sentence)):
        timestamp.read_authority(name, text, policy)


def test_pinned_certificates_are_written_as_they_are_read():
    authority = timestamp.read_authority("acme", timestamps.pem(HONEST.chain), tsa.POLICY)
    assert authority.pem().decode() == timestamps.pem(HONEST.chain)
    assert authority == timestamps.pinned(HONEST, tsa.POLICY)
    assert (authority.leaf, authority.root) == HONEST.chain


def test_a_query_is_read_back_by_both_libraries():
    made = timestamp.query(DATA, NONCE, "1.2.3")
    parsed = rfc3161ng.decode_timestamp_request(made)
    assert bytes(parsed["messageImprint"]["hashedMessage"]) == timestamp.imprint(DATA)
    assert (int(parsed["nonce"]), bool(parsed["certReq"]), str(parsed["reqPolicy"])) == (NONCE, True, "1.2.3")
    assert timestamp.read_nonce(made) == NONCE


@pytest.mark.parametrize("nonce", [0, -1, 2**64])
def test_a_nonce_has_its_bounds(nonce: int):
    with pytest.raises(Invalid, match="nonce"):
        timestamp.query(DATA, nonce)


def test_a_torn_query_has_no_nonce():
    for torn in (b"", timestamps.query()[:20], b"hello"):
        with pytest.raises(Invalid, match="stored timestamp query"):
            timestamp.read_nonce(torn)


# -- whatever comes, nothing but our refusal ------------------------------------------------------------------------

SAMPLES = [
    timestamps.respond(HONEST),
    timestamps.unsorted(timestamps.respond(dataclasses.replace(HONEST, whole_chain=True))),
    rejected(),
]


def believed_or_refused(response: bytes) -> None:
    """A changed response is refused, unless nothing that is signed or checked was changed."""
    try:
        token = check(response)
    except Invalid:
        return
    assert (token.gen_time, token.serial, token.policy, token.nonce) == (NOW, 4711, tsa.POLICY, NONCE)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=400))
def test_noise_is_refused(noise: bytes):
    with pytest.raises(Invalid):
        check(noise)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(SAMPLES), st.data())
def test_a_damaged_response_is_refused_or_says_the_same(sample: bytes, data: st.DataObject):
    damaged = bytearray(sample)
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(sample) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.none() | st.integers(0, len(sample)))
    believed_or_refused(bytes(damaged if cut is None else damaged[:cut] + damaged[cut + data.draw(st.integers(0, 9)) :]))


def test_any_byte_of_a_token_may_flip():
    bits = random.Random(3161)
    for position in range(bits.randrange(4), len(SAMPLES[0]), 4):
        flipped = bytearray(SAMPLES[0])
        flipped[position] ^= 1 << bits.randrange(8)
        believed_or_refused(bytes(flipped))
