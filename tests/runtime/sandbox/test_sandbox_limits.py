"""The sandbox at its limits: storms, full workspaces, odd files, odd patterns, a tampered fence, the process itself."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from folkmoot_cli.dev.issuer import ISSUER, Issuer
from folkmoot_core import names
from folkmoot_core.errors import Invalid
from folkmoot_runtime.sandbox import tools
from folkmoot_runtime.sandbox.app import LEASE_HEADER
from folkmoot_runtime.sandbox.workspace import MAX_FILE, MAX_FILES, Workspace

NAMESPACE = "folkmoot-acme"
NONCE = "n" * 32
LIMIT = 20_000_000
ISSUING = Issuer()


class Process:
    """`python -m folkmoot_runtime.sandbox` and an agent at its door."""

    def __init__(self, root: Path) -> None:
        self.root = root
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        (root / "trust").mkdir()
        (root / "trust" / "jwks.json").write_text(ISSUING.jwks())
        (root / "trust" / "issuer").write_text(ISSUER)
        token = ISSUING.token(NAMESPACE, "agent-builder", names.AUDIENCE_SANDBOX)
        headers = {"Authorization": f"Bearer {token}", LEASE_HEADER: NONCE}
        self.http = httpx2.AsyncClient(base_url=f"http://127.0.0.1:{self.port}", headers=headers, timeout=60, trust_env=False)
        self.count = 0

    async def start(self) -> None:
        environment = {
            "PATH": os.environ["PATH"], "PYTHONPATH": ":".join(sys.path), "FOLKMOOT_TENANT": "acme",
            "FOLKMOOT_NAMESPACE": NAMESPACE, "FOLKMOOT_LISTEN_HOST": "127.0.0.1", "FOLKMOOT_PORT": str(self.port),
            "FOLKMOOT_TRUST": str(self.root / "trust"), "FOLKMOOT_RUN": str(self.root / "run"),
            "FOLKMOOT_WORKSPACE": str(self.root / "workspace"), "FOLKMOOT_SANDBOX_CALLER": "agent-builder",
            "FOLKMOOT_SANDBOX_TOOLS": "bash,read,write,edit,glob,grep", "FOLKMOOT_SANDBOX_ISOLATION": "none",
            "FOLKMOOT_SANDBOX_WORKSPACE_BYTES": str(LIMIT),
        }  # fmt: skip
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "folkmoot_runtime.sandbox", env=environment, stderr=asyncio.subprocess.DEVNULL
        )
        while True:
            try:
                if (await self.http.get("/readyz")).status_code == 200:
                    return
            except httpx2.TransportError:
                assert self.process.returncode is None
            await asyncio.sleep(0.02)

    async def lease(self, fence: int, nonce: str = NONCE) -> httpx2.Response:
        body = {"session": "s", "endpoint": "http://sandbox", "nonce": nonce, "fence": fence}
        return await self.http.post("/v1/lease", json=body)

    async def tool(self, name: str, timeout: int = 30, **arguments: Any) -> dict[str, Any]:
        self.count += 1
        body = {"id": f"call-{self.count}", "name": name, "arguments": arguments, "timeout_seconds": timeout}
        response = await self.http.post("/v1/tools", json=body)
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer


@pytest.fixture
async def sandbox(tmp_path: Path) -> AsyncIterator[Process]:
    made = Process(tmp_path)
    await made.start()
    assert (await made.lease(1)).status_code == 200
    yield made
    if made.process.returncode is None:
        made.process.kill()
    await made.process.wait()
    await made.http.aclose()


async def test_a_storm_of_processes_is_ended_before_its_time(sandbox: Process) -> None:
    """600 sleepers at most, none of which makes another: bounded whatever the guard does."""
    answer = await sandbox.tool("bash", command="for i in $(seq 600); do sleep 61.25 & done; wait", timeout=50)
    assert "more than 256 processes" in answer["text"]
    assert (answer["error"], answer["timed_out"], answer["exit_code"]) == (True, False, None)
    assert [pid for pid in os.listdir("/proc") if pid.isdigit() and command_line(pid) == b"sleep\0" + b"61.25\0"] == []


def command_line(pid: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


async def test_a_background_process_that_holds_the_output_is_not_waited_for(sandbox: Process) -> None:
    answer = await sandbox.tool("bash", command="(setsid sleep 300 &); sleep 300 & echo done", timeout=60)
    assert (answer["text"], answer["exit_code"], answer["timed_out"]) == ("done\n", 0, False)


async def test_a_command_that_fills_the_workspace_is_ended(sandbox: Process) -> None:
    command = f"for i in 1 2 3; do head -c {LIMIT // 2} /dev/zero > f$i; done; sleep 60"
    answer = await sandbox.tool("bash", command=command, timeout=50)
    assert f"the workspace is larger than {LIMIT} bytes" in answer["text"]
    assert not (await sandbox.tool("bash", command="rm f*"))["error"]  # and there is a way back


async def test_one_file_is_bounded_by_the_kernel(sandbox: Process) -> None:
    answer = await sandbox.tool("bash", command="head -c 100000000 /dev/zero > big; ls -s --block-size=1 big; rm -f big")
    assert "67108864" in answer["text"] or "File size limit exceeded" in answer["text"]


async def test_what_cannot_be_kept_is_said_and_the_rest_is_kept(sandbox: Process) -> None:
    command = f"head -c {MAX_FILE + 1} /dev/zero > big; echo 1 > small; ln -s small link; mkfifo pipe"
    answer = await sandbox.tool("bash", command=command)
    assert [file["path"] for file in answer["workspace"]["files"]] == ["small"]
    for name in ("big", "link", "pipe"):
        assert name in answer["text"].partition("[not kept: ")[2]


async def test_too_many_files_are_said(sandbox: Process) -> None:
    answer = await sandbox.tool("bash", command=f"mkdir d; cd d; seq {MAX_FILES + 3} | xargs touch")
    assert len(answer["workspace"]["files"]) == MAX_FILES
    assert "beyond the first 5000" in answer["text"]


@pytest.mark.parametrize("tool", ["read", "write"])
async def test_a_pipe_cannot_hold_the_sandbox_up(sandbox: Process, tool: str) -> None:
    await sandbox.tool("bash", command="mkfifo pipe")
    more = {"content": "x"} if tool == "write" else {}
    assert (await sandbox.tool(tool, path="pipe", **more))["error"]


async def test_a_file_name_that_is_not_text_is_said(sandbox: Process) -> None:
    answer = await sandbox.tool("bash", command="touch $'a\\xff' b")
    assert [file["path"] for file in answer["workspace"]["files"]] == ["b"]
    assert "not UTF-8" in answer["text"]


async def test_a_change_within_one_tick_of_the_clock_changes_the_digest(sandbox: Process) -> None:
    digests = set()
    for digit in range(8):
        answer = await sandbox.tool("write", path="n", content=str(digit))
        digests.add(answer["workspace"]["files"][0]["digest"])
    assert len(digests) == 8


@pytest.mark.parametrize("content", ["0", "-5", "not a number", ""])
async def test_a_command_cannot_lower_the_fence(sandbox: Process, content: str) -> None:
    assert (await sandbox.lease(7)).status_code == 200
    await sandbox.tool("bash", command=f"printf %s '{content}' > {sandbox.root}/run/fence")
    assert (await sandbox.lease(6, "m" * 32)).json()["type"] == "Fenced"
    assert (await sandbox.lease(8)).status_code == 200


async def test_fences_rise_over_a_kill_of_the_process_and_the_workspace_is_wiped(sandbox: Process) -> None:
    await sandbox.tool("write", path="left", content="behind")
    sandbox.process.kill()
    await sandbox.process.wait()
    await sandbox.start()
    assert list((sandbox.root / "workspace").iterdir()) == []
    assert (await sandbox.lease(1)).json()["type"] == "Fenced"  # the files are gone, so the lease is
    assert (await sandbox.lease(2)).status_code == 200


async def test_a_released_lease_cannot_be_used_again(sandbox: Process) -> None:
    assert (await sandbox.http.delete("/v1/lease")).status_code == 204
    assert (await sandbox.http.get("/v1/blobs/sha256:00")).json()["type"] == "LeaseLost"
    assert (await sandbox.lease(1)).json()["type"] == "Fenced"


async def test_it_stops_when_told_and_takes_the_running_command_along(sandbox: Process) -> None:
    running = asyncio.create_task(sandbox.tool("bash", command=f"echo $$ > {sandbox.root}/pid; sleep 300", timeout=300))
    pid = sandbox.root / "pid"
    while not pid.exists() or not pid.read_text():
        await asyncio.sleep(0.02)
    sandbox.process.send_signal(signal.SIGTERM)
    assert await sandbox.process.wait() == 0
    await asyncio.gather(running, return_exceptions=True)
    assert not os.path.exists(f"/proc/{int(pid.read_text())}")


async def test_its_memory_is_closed_to_commands(sandbox: Process) -> None:
    """Not dumpable: everything of ours in /proc belongs to root, so a command with our uid cannot read or attach."""
    owner = os.stat(f"/proc/{sandbox.process.pid}/environ").st_uid
    assert owner == 0
    answer = await sandbox.tool("bash", command=f"grep -c . /proc/{sandbox.process.pid}/environ")
    assert os.getuid() == 0 or answer["error"]


def fits(name: str, pattern: str) -> bool:
    return tools._fits(name.split("/"), tools._segments(pattern))


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("*.py", ["a.py"], ["d/a.py", "a.pyc"]),
        ("**/*.py", ["a.py", "d/a.py", "d/e/a.py"], ["a.txt"]),
        ("src/**/test_*.py", ["src/test_a.py", "src/x/y/test_b.py"], ["test_a.py", "src/a.py"]),
        ("src/**", ["src/a", "src/b/c"], ["other/a"]),
        ("*a*b/*c*d.py", ["xaxb/cxd.py"], ["xb/cd.py"]),
        ("[ab]?/x", ["a1/x", "b2/x"], ["c1/x", "a/x"]),
        ("**", ["a", "a/b"], []),
    ],
)
def test_glob_patterns(pattern: str, yes: list[str], no: list[str]) -> None:
    assert [name for name in yes if not fits(name, pattern)] == []
    assert [name for name in no if fits(name, pattern)] == []


def test_a_strangers_pattern_cannot_hang_us() -> None:
    assert not fits("/".join(["a"] * 400), "/".join(["**/a"] * 100 + ["b"]))
    assert not fits("a" * 200, "*a" * 100 + "b")


@given(st.lists(st.sampled_from(["..", ".", "", "a", "b", "link", "/", "~", "a\0"]), max_size=6).map("/".join))
def test_no_path_resolves_outside(path: str) -> None:
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory).resolve()
        (root / "a").mkdir()
        (root / "link").symlink_to("/etc")
        (root / "a" / "link").symlink_to("../..")
        try:
            found = Workspace(root, 1).resolve(path)
        except Invalid:
            return
        assert found == root or found.is_relative_to(root)
