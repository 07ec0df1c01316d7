"""Checks and probes: what runs over which files, and what their failures count as."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from folkmoot_core.deliberation import CheckResult, Outcome, ProbeResult, RunCheck, RunProbes
from folkmoot_core.errors import Unavailable
from folkmoot_core.messages import WorkspaceManifest
from folkmoot_core.workspace import Lease, ToolAnswer, ToolCall
from folkmoot_runtime.conductor.blobs import File
from folkmoot_runtime.conductor.checks import ATTEMPTS, HttpSandbox, NotReached, restored
from folkmoot_runtime.conductor.probing import Probing
from folkmoot_runtime.conductor.runner import Protocols
from folkmoot_runtime.conductor.sealed_rows import assign_subject
from folkmoot_runtime.conductor.store import InlineExecutor

BASE = {"src.py": File(b"1", False), "tests/test_src.py": File(b"assert", False), "conftest.py": File(b"base", False)}


def texts(files: dict[str, File]) -> dict[str, bytes]:
    return {path: file.content for path, file in files.items()}


def test_tests_of_the_base_come_back() -> None:
    head = {"src.py": File(b"2", False), "tests/test_src.py": File(b"pass", False), "test_new.py": File(b"new", False)}
    assert texts(restored(head, BASE)) == {
        "src.py": b"2", "tests/test_src.py": b"assert", "conftest.py": b"base", "test_new.py": b"new",
    }  # fmt: skip
    assert texts(restored({}, BASE)) == {"tests/test_src.py": b"assert", "conftest.py": b"base"}


def test_a_harness_that_only_the_submission_has_stays_out() -> None:
    base = {"tests/test_src.py": File(b"assert", False)}
    head = {"conftest.py": File(b"evil", False), "pytest.ini": File(b"evil", False), "src.py": File(b"2", False)}
    assert texts(restored(head, base)) == {"src.py": b"2", "tests/test_src.py": b"assert"}
    assert restored(head, {}) == head


def test_settings_of_the_tests_are_the_bases_and_nothing_new_steers_them() -> None:
    base = {**BASE, "pyproject.toml": File(b"[tool.pytest.ini_options]\n", False)}
    steering = (
        "setup.cfg", ".pytest.ini", "sitecustomize.py", "usercustomize.py", "x.pth", "pytest.py", "pytest/__init__.py", "_pytest/a.py",
        "tests/random.py", "argparse.py", ".local/lib/python3.11/site-packages/usercustomize.py",
    )  # fmt: skip
    head = {
        **base,
        "pyproject.toml": File(b"addopts = '--collect-only'", False),
        **{path: File(b"evil", False) for path in steering},
    }
    assert restored(head, base) == base
    honest = {**base, "calc.py": File(b"1", False), "pkg/random.py": File(b"2", False)}
    assert restored(honest, base) == honest


def test_a_file_where_the_tests_were_gives_way() -> None:
    assert texts(restored({"tests": File(b"file", False)}, {"tests/test_a.py": File(b"t", False)})) == {"tests/test_a.py": b"t"}


def checking(workspace: str, base: str | None) -> Any:
    def deliberation(context: Any) -> Any:
        check = RunCheck(id="gate/1/check/t", name="t", run="pytest -q", workspace=workspace, base=base, timeout_seconds=5)
        probe = RunProbes(id="probes/1", base=base, workspace=workspace, shapes_allow=("*",), shapes_deny=())
        answers = yield (check, probe)
        ran, found = answers[check.id], answers[probe.id]
        assert isinstance(ran, CheckResult)
        assert isinstance(found, ProbeResult)
        return Outcome(
            phase="Succeeded", reason="Ran", message="ran", result=ran.model_dump_json() + "\n" + found.model_dump_json()
        )

    return deliberation


async def ran(
    world: Any, make: Any, head: dict[str, File], base: dict[str, File] | None = None
) -> tuple[CheckResult, ProbeResult, Any]:
    async with world.running() as conductor:
        await conductor.store.run(assign_subject, make.uid, None, None, "ref", 0)
        submitted, _ = await conductor.artefacts.put_workspace(make.uid, head)
        original = (await conductor.artefacts.put_workspace(make.uid, base))[0] if base is not None else None
        conductor.sessions._parts = _with(conductor.sessions._parts, checking(submitted, original))
        await conductor.documents.put(make.document())
        await conductor.sessions.accept(make.order())
        report = await world.ended(conductor)
        text = (await conductor.artefacts.get(report.result_digest)).decode()
        check, probes = text.split("\n")
        diff = ProbeResult.model_validate_json(probes).diff
        shown = (await conductor.artefacts.get(diff)).decode() if diff else ""
    return CheckResult.model_validate_json(check), ProbeResult.model_validate_json(probes), shown


def _with(parts: Any, deliberation: Any) -> Any:
    from dataclasses import replace

    return replace(parts, protocols=Protocols(council=deliberation, agent=deliberation))


@pytest.mark.looptime
async def test_a_check_runs_with_the_tests_of_the_base(world: Any, make: Any) -> None:
    head = {"src.py": File(b"2", True), "tests/test_src.py": File(b"pass", False)}
    check, probes, diff = await ran(world, make, head, BASE)
    assert check == CheckResult(exit_code=0, output="ok")
    ((command, files),) = world.sandbox.runs
    assert command == "pytest -q"
    assert texts(files) == {"src.py": b"2", "tests/test_src.py": b"assert", "conftest.py": b"base"}
    assert files["src.py"].executable
    assert probes.files
    assert not probes.error
    assert "-assert\n+pass\n" in diff


@pytest.mark.looptime
async def test_a_failing_check_tells_its_exit_code(world: Any, make: Any) -> None:
    world.sandbox._answer = lambda command, files: (1, "x" * 9000 + "1 failed")
    check, _, _ = await ran(world, make, {"a": File(b"", False)})
    assert check.exit_code == 1
    assert check.output.endswith("1 failed")
    assert len(check.output) == 4096


@pytest.mark.looptime
async def test_a_check_is_run_again_when_its_sandbox_died(world: Any, make: Any) -> None:
    world.sandbox.deaths = ATTEMPTS - 1
    check, _, _ = await ran(world, make, {"a": File(b"", False)})
    assert check.exit_code == 0
    assert [lease.fence for lease in world.sandbox.leases] == list(range(1, ATTEMPTS + 1))


@pytest.mark.looptime
async def test_a_check_that_kills_every_sandbox_has_no_exit_code(world: Any, make: Any) -> None:
    world.sandbox.deaths = 99
    check, _, _ = await ran(world, make, {"a": File(b"", False)})
    assert check.exit_code is None
    assert "died" in check.error
    assert len(world.sandbox.leases) == ATTEMPTS


@pytest.mark.looptime
async def test_without_a_sandbox_no_check_passes(world: Any, make: Any) -> None:
    world.sandbox = None
    check, _, _ = await ran(world, make, {"a": File(b"", False)})
    assert check.exit_code is None
    assert check.error


@pytest.mark.looptime
async def test_probes_that_break_are_not_an_approval(world: Any) -> None:
    def broken(*_: Any) -> ProbeResult:
        raise RecursionError

    async with world.running() as conductor:
        await conductor.store.run(assign_subject, "s", None, None, "ref", 0)
        submitted, _ = await conductor.artefacts.put_workspace("s", {"a": File(b"", False)})
        need = RunProbes(id="p", base=None, workspace=submitted, shapes_allow=("*",), shapes_deny=())
        assert (
            await Probing(conductor.artefacts, InlineExecutor(), broken).run("s", need)
        ).error == "the probes raised RecursionError"
        missing = need.model_copy(update={"workspace": "sha256:" + "0" * 64})
        assert (await Probing(conductor.artefacts, InlineExecutor()).run("s", missing)).error


class SandboxDoor:
    """The sandbox's routes as far as a check needs them."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []
        self.files: dict[str, tuple[bytes, bool]] = {}
        self.refuse, self.status = "", 503
        self.headers: set[tuple[str, str]] = set()

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/v1/lease", self.lease, methods=["POST", "DELETE"]),
                Route("/v1/files/{path:path}", self.file, methods=["PUT"]),
                Route("/v1/tools", self.tool, methods=["POST"]),
            ]
        )

    async def lease(self, request: Request) -> Response:
        return self._said(request, JSONResponse({"fence": 1}))

    async def file(self, request: Request) -> Response:
        self.files[request.path_params["path"]] = (await request.body(), request.query_params.get("executable") == "1")
        return self._said(request, Response(status_code=204))

    async def tool(self, request: Request) -> Response:
        self.headers.add((request.headers["authorization"], request.headers["folkmoot-lease"]))
        call = json.loads(await request.body())
        answer = ToolAnswer(text=call["arguments"]["command"], exit_code=3, workspace=WorkspaceManifest())
        return self._said(request, JSONResponse(answer.model_dump()))

    def _said(self, request: Request, answer: Response) -> Response:
        self.calls.append((request.method, request.url.path))
        return Response(status_code=self.status) if self.refuse == request.url.path else answer


async def test_the_http_sandbox_speaks_the_sandboxs_door(tmp_path: Any) -> None:
    door = SandboxDoor()
    (tmp_path / "token").write_text("tok\n")
    sandbox = HttpSandbox("http://checks:8080", tmp_path / "token", lambda: httpx2.ASGITransport(door.app()))
    lease = Lease(session="s", endpoint="http://checks:8080", nonce="n" * 20, fence=1)
    call = ToolCall(id="c", name="bash", arguments={"command": "true"}, timeout_seconds=5)
    files = {"a b/ü.py": File(b"1", True), "c": File(b"", False)}
    answer = await sandbox.run(lease, files, call)
    assert (answer.text, answer.exit_code) == ("true", 3)
    assert door.files == {"a b/ü.py": (b"1", True), "c": (b"", False)}
    assert door.headers == {("Bearer tok", "n" * 20)}
    assert [method for method, _ in door.calls] == ["POST", "PUT", "PUT", "POST", "DELETE"]
    door.refuse = "/v1/lease"
    with pytest.raises(NotReached):
        await sandbox.run(lease, files, call)
    door.refuse = "/v1/tools"
    with pytest.raises(Unavailable) as died:
        await sandbox.run(lease, files, call)
    assert not isinstance(died.value, NotReached)
    door.refuse, door.status = "/v1/lease", 409  # it noted the fence, died before it answered, and came back
    with pytest.raises(Unavailable) as fenced:
        await sandbox.run(lease, files, call)
    assert not isinstance(fenced.value, NotReached), "the same lease would be refused for ever"
