"""Sealing: what was sealed opens again, and nothing else does, with our own error."""

from __future__ import annotations

import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from folkmoot_core import sealing
from folkmoot_core.errors import Invalid
from folkmoot_core.sealing import DataKey

KEYS = st.binary(min_size=32, max_size=32)
NONCES = st.binary(min_size=12, max_size=12)
NAMES = st.text(st.characters(min_codepoint=1, max_codepoint=127), max_size=80)


@given(KEYS, NAMES, NAMES, NONCES, KEYS, st.binary(max_size=2000))
def test_what_was_sealed_opens_again(key: bytes, context: str, name: str, nonce: bytes, secret: bytes, content: bytes) -> None:
    sealed = DataKey(key, context).seal(name, content, nonce=nonce, secret=secret)
    assert len(sealed) == len(content) + sealing.OVERHEAD
    assert DataKey(key, context).open(name, sealed) == (secret, content)


@given(st.binary(max_size=300), st.data())
def test_one_flipped_bit_anywhere_is_refused(content: bytes, data: st.DataObject) -> None:
    key = DataKey(b"k" * 32, "folkmoot/log")
    sealed = bytearray(key.seal("sha256:aa", content, nonce=b"n" * 12, secret=b"s" * 32))
    position = data.draw(st.integers(0, len(sealed) * 8 - 1))
    sealed[position // 8] ^= 1 << position % 8
    with pytest.raises(Invalid) as refused:
        key.open("sha256:aa", bytes(sealed))
    assert refused.value.reason == "SealBroken"


@given(st.binary(max_size=200), st.data())
def test_what_is_cut_short_or_grown_is_refused(content: bytes, data: st.DataObject) -> None:
    key = DataKey(b"k" * 32, "folkmoot/log")
    sealed = key.seal("n", content, nonce=b"n" * 12, secret=b"s" * 32)
    cut = data.draw(st.integers(0, len(sealed) - 1))
    for other in (sealed[:cut], sealed + b"\0", sealed[cut + 1 :]):
        with pytest.raises(Invalid, match="does not open"):
            key.open("n", other)


@given(st.binary(max_size=400))
def test_arbitrary_bytes_are_refused_with_our_error(data: bytes) -> None:
    for attempt in (lambda: DataKey(b"k" * 32, "c").open("n", data), lambda: sealing.unwrap(b"k" * 32, "n", data)):
        with pytest.raises(Invalid):
            attempt()
    with pytest.raises(Invalid):
        DataKey(b"k" * 32, "c").open("n", b"FMS1" + data)


@given(NAMES, NAMES, NAMES, NAMES)
def test_another_name_log_or_key_does_not_open(context: str, name: str, other_context: str, other_name: str) -> None:
    sealed = DataKey(b"k" * 32, context).seal(name, b"content", nonce=b"n" * 12, secret=b"s" * 32)
    same = (context, name) == (other_context, other_name)
    if not same:
        with pytest.raises(Invalid, match="does not open"):
            DataKey(b"k" * 32, other_context).open(other_name, sealed)
    with pytest.raises(Invalid, match="does not open"):
        DataKey(b"K" * 32, context).open(name, sealed)


def test_a_boundary_between_context_and_name_cannot_be_moved() -> None:
    sealed = DataKey(b"k" * 32, "ab").seal("c", b"", nonce=b"n" * 12, secret=b"s" * 32)
    with pytest.raises(Invalid):
        DataKey(b"k" * 32, "a").open("bc", sealed)
    for odd in ("a\0b", "ü"):
        with pytest.raises(Invalid, match="ASCII"):
            DataKey(b"k" * 32, odd)


@pytest.mark.parametrize(("key", "nonce", "secret"), [(31, 12, 32), (32, 11, 32), (32, 12, 31), (16, 12, 32)])
def test_short_keys_nonces_and_secrets_are_refused(key: int, nonce: int, secret: int) -> None:
    with pytest.raises(Invalid, match="bytes, not"):
        DataKey(b"k" * key, "c").seal("n", b"", nonce=b"n" * nonce, secret=b"s" * secret)


def test_bytes_that_hold_no_secret_are_refused() -> None:
    """Somebody with the key could seal less than a secret; it is no content of ours."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    aad = b"folkmoot/sealed/v1\0c\0n"
    sealed = b"FMS1" + b"n" * 12 + AESGCM(b"k" * 32).encrypt(b"n" * 12, b"short", aad)
    with pytest.raises(Invalid, match="does not open"):
        DataKey(b"k" * 32, "c").open("n", sealed)


@given(KEYS, NAMES, KEYS, NONCES)
def test_a_wrapped_key_unwraps_under_its_name_alone(wrapping: bytes, name: str, key: bytes, nonce: bytes) -> None:
    wrapped = sealing.wrap(wrapping, name, key, nonce=nonce)
    assert sealing.unwrap(wrapping, name, wrapped) == key
    for other_key, other_name in ((wrapping, name + "x"), (bytes(b ^ 1 for b in wrapping), name)):
        with pytest.raises(Invalid, match="does not open"):
            sealing.unwrap(other_key, other_name, wrapped)


def test_a_salt_is_the_entrys_own_and_is_hmac_of_what_the_page_says() -> None:
    first, second = sealing.salt(b"s" * 32, "entry-1"), sealing.salt(b"s" * 32, "entry-2")
    assert first == hmac.digest(b"s" * 32, b"folkmoot/salt/v1\0entry-1", hashlib.sha256)
    assert len({first, second, sealing.salt(b"t" * 32, "entry-1")}) == 3
    with pytest.raises(Invalid):
        sealing.salt(b"short", "entry-1")


def test_months_are_those_of_utc() -> None:
    assert [sealing.month_of(t) for t in (0, 1_790_000_000, 1_798_761_599, 1_798_761_600)] == [
        "1970-01", "2026-09", "2026-12", "2027-01",
    ]  # fmt: skip
