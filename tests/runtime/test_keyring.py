"""Wrapping of secrets on a volume: by a key in a file, for a purpose, and never without saying so."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from folkmoot_core.errors import Invalid, Unavailable
from folkmoot_runtime.keyring import VARIABLE, FileWrapper, NoWrapper, from_environment


def wrapper(tmp_path: Path, byte: bytes = b"k", name: str = "kek") -> FileWrapper:
    (tmp_path / name).write_bytes(byte * 32)
    return FileWrapper(tmp_path / name)


def test_a_secret_comes_back_for_its_purpose_alone(tmp_path: Path) -> None:
    one = wrapper(tmp_path)
    wrapped = one.wrap(b"secret", b"log")
    assert b"secret" not in wrapped
    assert one.unwrap(wrapped, b"log") == b"secret"
    assert one.wrap(b"secret", b"log") != wrapped
    with pytest.raises(Invalid):
        one.unwrap(wrapped, b"other")
    with pytest.raises(Invalid, match="not wrapped by the key"):
        wrapper(tmp_path, b"x", "other").unwrap(wrapped, b"log")


@given(st.data())
def test_what_was_changed_is_refused(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    one = wrapper(tmp_path_factory.mktemp("kek"))
    wrapped = one.wrap(b"secret of some length", b"log")
    position, bit = data.draw(st.integers(0, len(wrapped) - 1)), data.draw(st.integers(0, 7))
    changed = wrapped[:position] + bytes([wrapped[position] ^ (1 << bit)]) + wrapped[position + 1 :]
    for broken in (changed, wrapped[:position]):
        with pytest.raises(Invalid):
            one.unwrap(broken, b"log")


def test_the_key_may_be_text_and_its_name_tells_nothing(tmp_path: Path) -> None:
    raw = wrapper(tmp_path)
    (tmp_path / "text").write_text((b"k" * 32).hex() + "\n")
    text = FileWrapper(tmp_path / "text")
    assert text.id == raw.id
    assert (b"k" * 8).hex() not in text.id


@pytest.mark.parametrize("content", [b"", b"short", b"k" * 31, b"k" * 33, b"g" * 64])
def test_a_key_of_another_length_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "kek").write_bytes(content)
    with pytest.raises(Unavailable, match="expected a key-encryption key of 32 bytes"):
        FileWrapper(tmp_path / "kek")


def test_the_environment_names_the_file(tmp_path: Path) -> None:
    assert isinstance(from_environment({}), NoWrapper)
    assert from_environment({VARIABLE: str(tmp_path / "kek") if wrapper(tmp_path) else ""}).id.startswith("file:")
    with pytest.raises(Unavailable, match="is not there"):
        from_environment({VARIABLE: str(tmp_path / "absent")})
    assert NoWrapper().unwrap(NoWrapper().wrap(b"x", b""), b"") == b"x"
