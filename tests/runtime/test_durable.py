"""Directories with one owner. What survives a power cut is tested where it is used (tests/runtime/ledger)."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import pytest

from folkmoot_core.errors import Conflict, Unavailable
from folkmoot_runtime.durable import lock_directory


def test_one_has_it_until_it_lets_go(tmp_path: Path) -> None:
    held = lock_directory(tmp_path)
    with pytest.raises(Conflict, match="in use by another process") as refused:
        lock_directory(tmp_path)
    assert refused.value.reason == "SecondWriter"
    os.close(held)
    os.close(lock_directory(tmp_path))


def test_where_nothing_can_be_locked_that_is_said_and_nobody_is_accused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(_fd: int, _operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with pytest.raises(Unavailable, match=r"cannot be locked: No locks available; use a block volume"):
        lock_directory(tmp_path)
