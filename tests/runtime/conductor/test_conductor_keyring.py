"""The key-encryption key: made once, never silently replaced, and what was destroyed stays so."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from folkmoot_core.errors import Invalid, Missing, Unavailable
from folkmoot_runtime.conductor.keyring import FileKeyring, open_keyring

DATA_KEY = b"d" * 32


def test_it_is_made_at_the_first_start_for_this_user_alone(tmp_path: Path) -> None:
    ring = open_keyring(tmp_path, None, None)
    assert (tmp_path / "tenant.kek").stat().st_mode & 0o777 == 0o600
    wrapped = ring.wrap("ref/2026-01", DATA_KEY)
    again = open_keyring(tmp_path, None, ring.id)
    assert again.unwrap("ref/2026-01", wrapped) == DATA_KEY
    assert DATA_KEY not in wrapped
    (share,) = (tmp_path / "shares").iterdir()
    assert share.stat().st_mode & 0o777 == 0o600
    again.wrap("ref/2026-02", DATA_KEY)
    with pytest.raises(Invalid):
        again.unwrap("ref/2026-02", wrapped)


def test_a_key_that_is_missing_exposed_or_another_is_refused(tmp_path: Path) -> None:
    ring = open_keyring(tmp_path, None, None)
    path = tmp_path / "tenant.kek"
    path.chmod(0o644)
    with pytest.raises(Unavailable, match="chmod 600"):
        open_keyring(tmp_path, None, ring.id)
    path.chmod(0o600)
    path.write_bytes(b"o" * 32)
    with pytest.raises(Unavailable, match="another key-encryption key"):
        open_keyring(tmp_path, None, ring.id)
    path.write_bytes(b"short")
    with pytest.raises(Unavailable, match="expected a key-encryption key"):
        open_keyring(tmp_path, None, ring.id)
    path.unlink()
    with pytest.raises(Unavailable, match="not there"):
        open_keyring(tmp_path, None, ring.id)
    assert not path.exists()  # and no new one was made in its place


def test_a_mounted_key_may_be_bytes_or_hex(tmp_path: Path) -> None:
    given = tmp_path / "mounted"
    with pytest.raises(Unavailable, match="mount"):
        open_keyring(tmp_path, given, None)
    given.write_bytes(b"k" * 32)
    first = open_keyring(tmp_path, given, None)
    given.write_text((b"k" * 32).hex() + "\n")
    assert open_keyring(tmp_path, given, first.id).id == first.id
    assert not (tmp_path / "tenant.kek").exists()
    with pytest.raises(Invalid):
        FileKeyring(b"short", tmp_path)


def test_what_was_destroyed_stays_so(tmp_path: Path) -> None:
    ring = open_keyring(tmp_path, None, None)
    wrapped = {name: ring.wrap(name, DATA_KEY) for name in ("a/2026-01", "b/2026-01")}
    ring.destroy("a/2026-01")
    ring.destroy("a/2026-01")
    with pytest.raises(Missing, match="gone for good"):
        ring.unwrap("a/2026-01", wrapped["a/2026-01"])
    assert ring.unwrap("b/2026-01", wrapped["b/2026-01"]) == DATA_KEY
    ring.wrap("a/2026-01", DATA_KEY)  # a new share does not bring the old one back
    with pytest.raises(Invalid):
        ring.unwrap("a/2026-01", wrapped["a/2026-01"])


def test_a_share_that_a_crash_caught_overwritten_counts_as_gone(tmp_path: Path) -> None:
    ring = open_keyring(tmp_path, None, None)
    wrapped = ring.wrap("a/2026-01", DATA_KEY)
    (share,) = (tmp_path / "shares").iterdir()
    share.write_bytes(bytes(32))
    with pytest.raises(Missing):
        ring.unwrap("a/2026-01", wrapped)
    with pytest.raises(Missing, match="being destroyed"):
        ring.wrap("a/2026-01", DATA_KEY)
    ring.destroy("a/2026-01")
    assert not os.listdir(tmp_path / "shares")
