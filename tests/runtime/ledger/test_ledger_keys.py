"""The log's keys at rest: wrapped by the key that is given, and of no use without it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from folkmoot_runtime.keyring import FileWrapper, NoWrapper, Wrapper
from folkmoot_runtime.ledger.log import Options, open_log
from folkmoot_runtime.ledger.records import LogDamaged
from folkmoot_runtime.ledger.volume import Birth

SECRET = bytes(range(64))
BIRTH = Birth(origin=lambda: "folkmoot/fixed", secret=lambda: SECRET)


def kek(tmp_path: Path, byte: bytes) -> FileWrapper:
    path = tmp_path / f"kek-{byte.hex()}"
    path.write_bytes(byte * 32)
    return FileWrapper(path)


async def opened(directory: Path, wrapper: Wrapper) -> str:
    log = await open_log(directory, Options(tenant="acme", wrapper=wrapper, birth=BIRTH))
    await log.aclose()
    return log.vkey


async def test_keys_rest_wrapped_and_come_back(tmp_path: Path) -> None:
    wrapper = kek(tmp_path, b"a")
    vkey = await opened(tmp_path / "log", wrapper)
    assert await opened(tmp_path / "log", wrapper) == vkey
    files = [path.read_bytes() for path in (tmp_path / "log").iterdir() if path.is_file()]
    for seed in (SECRET[:32], SECRET[32:]):
        assert not any(seed in content or seed.hex().encode() in content for content in files)
    assert json.loads((tmp_path / "log" / "log.key").read_bytes())["kek"] == wrapper.id


async def test_without_the_key_that_wrapped_them_the_log_does_not_start(tmp_path: Path) -> None:
    await opened(tmp_path / "log", kek(tmp_path, b"a"))
    for other in (kek(tmp_path, b"b"), NoWrapper()):
        with pytest.raises(LogDamaged, match="mount the key that wrapped it"):
            await opened(tmp_path / "log", other)


async def test_a_wrapped_file_that_was_changed_is_refused(tmp_path: Path) -> None:
    wrapper = kek(tmp_path, b"a")
    await opened(tmp_path / "log", wrapper)
    path = tmp_path / "log" / "log.key"
    value = json.loads(path.read_bytes())
    value["keys"] = value["keys"][:-8] + ("A" * 6) + "=="
    path.write_text(json.dumps(value))
    with pytest.raises(LogDamaged):
        await opened(tmp_path / "log", wrapper)
