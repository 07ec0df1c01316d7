"""The Containerfiles: dependencies by hash, code last, no root, nothing of the machine that builds."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = {"runtime": ROOT / "agents-image" / "Containerfile", "operator": ROOT / "operator" / "Containerfile"}


def pins(path: Path) -> dict[str, str]:
    """Requirement → its whole entry, hashes included."""
    entries = re.split(r"\n(?=\S)", path.read_text())
    return {re.split(r"\[|==", entry)[0]: entry.strip() for entry in entries if "==" in entry}


def test_the_sandboxes_tools_are_the_ones_we_test_with() -> None:
    tools, dev = pins(ROOT / "agents-image" / "sandbox.lock"), pins(ROOT / "requirements" / "dev.lock")
    assert "pytest" in tools
    assert {name: dev.get(name) for name in tools} == tools


def test_the_two_locks_of_the_runtime_do_not_contradict() -> None:
    tools, runtime = pins(ROOT / "agents-image" / "sandbox.lock"), pins(ROOT / "requirements" / "runtime.lock")
    assert all(runtime[name] == tools[name] for name in tools.keys() & runtime.keys())


@pytest.mark.parametrize("path", FILES.values(), ids=FILES)
def test_dependencies_come_by_hash_and_wheel(path: Path) -> None:
    installs = re.findall(r"pip install[^&]*", path.read_text())
    assert installs
    for line in installs:
        assert "--require-hashes" in line
        assert "--only-binary :all:" in line
        assert "--index" not in line


@pytest.mark.parametrize("path", FILES.values(), ids=FILES)
def test_base_first_code_last_and_never_root(path: Path) -> None:
    lines = [line for line in path.read_text().splitlines() if re.match(r"(ARG|FROM|RUN|COPY|USER|CMD|ADD|ENV)\b", line)]
    assert lines[0].startswith("ARG BASE=docker.io/library/python:3.13-slim-trixie")
    assert lines[1] == "FROM ${BASE}"
    copies = [line for line in lines if line.startswith("COPY")]
    assert ".lock" in copies[0]
    assert all(re.match(r"COPY \S+/folkmoot_\w+ /opt/folkmoot/src/folkmoot_\w+$", line) for line in copies[1:])
    users = [line for line in lines if line.startswith("USER")]
    assert len(users) == 1
    assert int(users[0].split()[1].split(":")[0]) >= 10000
    assert not any(line.startswith("ADD") for line in lines)


def test_each_image_holds_its_own_packages_alone() -> None:
    def packages(path: Path) -> set[str]:
        return set(re.findall(r"/opt/folkmoot/src/(folkmoot_\w+)", path.read_text()))

    assert packages(FILES["runtime"]) == {"folkmoot_core", "folkmoot_runtime"}
    assert packages(FILES["operator"]) == {"folkmoot_core", "folkmoot_operator"}
