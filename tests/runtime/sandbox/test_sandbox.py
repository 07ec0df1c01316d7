"""The sandbox on real processes: who may use it, what leaves it, and that nothing stays alive."""

from __future__ import annotations

import asyncio
import os

import httpx2
import pytest

from folkmoot_cli.dev.issuer import ISSUER, Issuer
from folkmoot_core import names
from folkmoot_runtime.sandbox import processes
from folkmoot_runtime.sandbox.app import LEASE_HEADER, Rules, Sandbox
from folkmoot_runtime.sandbox.processes import Jail
from folkmoot_runtime.sandbox.workspace import Workspace
from folkmoot_runtime.trust import Trust

NAMESPACE = "folkmoot-acme"
CALLER = "agent-builder"
NONCE = "n" * 32
ISSUING = Issuer()


@pytest.fixture(scope="module", autouse=True)
def _subreaper():
    assert processes.become_subreaper()


@pytest.fixture
async def sandbox(tmp_path):
    trust = tmp_path / "trust"
    trust.mkdir()
    (trust / "jwks.json").write_text(ISSUING.jwks())
    (trust / "issuer").write_text(ISSUER)
    root = tmp_path / "workspace"
    root.mkdir()
    rules = Rules(CALLER, frozenset({"bash", "read", "write", "edit", "glob", "grep"}), timeout=20)
    return Sandbox(Trust(trust, NAMESPACE), rules, Workspace(root, 1_000_000), Jail("none", root), tmp_path / "fence")


class Client:
    """An agent at the sandbox's door."""

    def __init__(self, sandbox, account=CALLER, namespace=NAMESPACE, audience=names.AUDIENCE_SANDBOX):
        token = ISSUING.token(namespace, account, audience)
        headers = {"Authorization": f"Bearer {token}"}
        transport = httpx2.ASGITransport(app=sandbox.app())
        self.http = httpx2.AsyncClient(transport=transport, base_url="http://sandbox", headers=headers)
        self.count = 0

    async def lease(self, fence=1, nonce=NONCE):
        self.http.headers[LEASE_HEADER] = nonce
        return await self.http.post(
            "/v1/lease", json={"session": "s", "endpoint": "http://sandbox", "nonce": nonce, "fence": fence}
        )

    async def tool(self, name, call_id=None, timeout=20, **arguments):
        self.count += 1
        body = {"id": call_id or f"call-{self.count}", "name": name, "arguments": arguments, "timeout_seconds": timeout}
        return await self.http.post("/v1/tools", json=body)

    async def text(self, name, **arguments):
        answer = await self.tool(name, **arguments)
        assert answer.status_code == 200, answer.text
        return answer.json()["text"]


@pytest.fixture
async def client(sandbox):
    made = Client(sandbox)
    assert (await made.lease()).status_code == 200
    return made


@pytest.mark.parametrize(
    ("who", "status"),
    [
        ({"account": "agent-other"}, 403),
        ({"namespace": "folkmoot-globex"}, 401),
        ({"audience": names.AUDIENCE_BROKER}, 401),
    ],
)
async def test_a_token_of_anybody_else_is_refused(sandbox, who, status):
    assert (await Client(sandbox, **who).lease()).status_code == status


async def test_no_token_is_refused(sandbox):
    client = Client(sandbox)
    del client.http.headers["Authorization"]
    assert (await client.lease()).status_code == 401


async def test_without_the_current_nonce_nothing_works(sandbox, client):
    client.http.headers[LEASE_HEADER] = "x" * 32
    answer = await client.tool("bash", command="true")
    assert (answer.status_code, answer.json()["type"]) == (409, "LeaseLost")
    assert (await client.http.put("/v1/files/a", content=b"x")).status_code == 409


async def test_fences_only_rise_even_over_a_restart(sandbox, client, tmp_path):
    assert (await client.lease(fence=5, nonce="m" * 32)).status_code == 200
    assert (await client.lease(fence=4, nonce="k" * 32)).json()["type"] == "Fenced"
    again = Client(Sandbox(sandbox.trust, sandbox.rules, sandbox.workspace, sandbox.jail, sandbox.fence_file))
    assert (await again.lease(fence=5, nonce="j" * 32)).json()["type"] == "Fenced"
    assert (await again.lease(fence=6, nonce="j" * 32)).status_code == 200


async def test_a_lease_said_again_keeps_the_files_and_a_new_one_wipes_them(client):
    await client.text("write", path="a/b.txt", content="hello")
    assert (await client.lease()).status_code == 200
    assert "hello" in await client.text("read", path="a/b.txt")
    assert (await client.lease(fence=2, nonce="z" * 32)).status_code == 200
    assert "(no file matches)" in await client.text("glob", pattern="**/*")


async def test_the_same_call_is_never_run_twice(client):
    assert (await client.tool("bash", call_id="once", command="echo x >> log")).status_code == 200
    again = await client.tool("bash", call_id="once", command="echo x >> log")
    assert again.json()["type"] == "AlreadyRun"
    assert (await client.text("read", path="log")).count("x") == 1


async def test_a_tool_that_is_not_allowed_is_refused_here(sandbox):
    sandbox.rules = Rules(CALLER, frozenset({"read"}), 20)
    client = Client(sandbox)
    await client.lease()
    assert (await client.tool("bash", command="true")).status_code == 403


async def test_wrong_arguments_name_the_argument(client):
    answer = await client.tool("edit", path="a")
    assert answer.status_code == 400
    assert "'old'" in answer.json()["detail"]


async def test_files_go_in_and_out_by_digest(client):
    assert (await client.http.put("/v1/files/run.sh?executable=1", content=b"#!/bin/sh\necho ran\n")).status_code == 204
    answer = (await client.tool("bash", command="./run.sh > out.txt")).json()
    files = {f["path"]: f for f in answer["workspace"]["files"]}
    assert files["run.sh"]["executable"]
    blob = await client.http.get(f"/v1/blobs/{files['out.txt']['digest']}")
    assert blob.content == b"ran\n"
    assert (await client.http.get("/v1/blobs/sha256:00")).status_code == 404


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a/../../x", "link/x", "a\0b"])
async def test_no_path_leaves_the_workspace(client, path, tmp_path):
    (tmp_path / "outside").mkdir()
    await client.tool("bash", command=f"ln -s {tmp_path}/outside link")
    for answer in (await client.tool("read", path=path), await client.tool("write", path=path, content="x")):
        assert answer.status_code == 400 or answer.json()["error"], answer.text
    assert not (tmp_path / "x").exists()
    assert list((tmp_path / "outside").iterdir()) == []


async def test_links_are_not_part_of_the_manifest(client):
    answer = (await client.tool("bash", command="ln -s /etc/passwd p; mkdir d; ln -s /etc d/e; echo 1 > d/real")).json()
    assert [f["path"] for f in answer["workspace"]["files"]] == ["d/real"]


async def test_the_exit_code_and_both_streams_are_told(client):
    answer = (await client.tool("bash", command="echo out; echo err >&2; exit 3")).json()
    assert (answer["exit_code"], answer["error"]) == (3, True)
    assert "out" in answer["text"]
    assert "err" in answer["text"]


async def test_a_command_sees_nothing_of_ours(client):
    text = await client.text("bash", command="env; echo $0")
    assert "FOLKMOOT" not in text


async def test_the_time_limit_kills_every_descendant(client, tmp_path):
    script = f"(setsid nohup sh -c 'echo $$ > {tmp_path}/a; sleep 300' &) ; (sh -c 'echo $$ > {tmp_path}/b; exec sleep 300' &); sleep 300"
    answer = (await client.tool("bash", timeout=1, command=script)).json()
    assert (answer["timed_out"], answer["exit_code"]) == (True, None)
    for name in "ab":
        pid = int((tmp_path / name).read_text())
        assert not os.path.exists(f"/proc/{pid}"), name


async def test_what_a_command_leaves_in_the_background_dies_with_it(client, tmp_path):
    answer = (
        await client.tool("bash", command=f"(setsid sh -c 'echo $$ > {tmp_path}/pid; sleep 300' >/dev/null 2>&1 &); sleep 0.3")
    ).json()
    assert answer["exit_code"] == 0
    assert not os.path.exists(f"/proc/{int((tmp_path / 'pid').read_text())}")


async def test_a_bounded_fork_storm_ends(client):
    answer = (
        await client.tool("bash", timeout=2, command="f() { [ $1 -gt 0 ] && { f $(($1-1)) & f $(($1-1)) & }; sleep 60; }; f 5")
    ).json()
    assert answer["timed_out"]
    assert processes._descendants(os.getpid()) == set()


async def test_a_flood_of_output_is_cut_in_the_middle(client):
    text = await client.text("bash", command="echo begin; head -c 3000000 /dev/zero | tr '\\0' x; echo; echo end")
    assert text.startswith("begin")
    assert "bytes left out" in text
    assert text.rstrip().endswith("end")
    assert len(text) < processes.MAX_OUTPUT + 200


async def test_control_characters_do_not_reach_the_model(client):
    assert await client.text("bash", command=r"printf 'a\033[31mb\000c\td\n'") == "a[31mbc\td\n"


async def test_a_workspace_has_a_size(client):
    answer = (await client.tool("write", path="big", content="x" * 999_999)).json()
    assert not answer["error"]
    assert (await client.tool("write", path="more", content="x" * 2)).json()["error"]
    assert (await client.tool("write", path="big", content="y" * 999_998)).json()["error"] is False


async def test_a_new_lease_kills_the_running_command(sandbox, client, tmp_path):
    running = asyncio.create_task(client.tool("bash", command=f"echo $$ > {tmp_path}/pid; sleep 300"))
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        await asyncio.sleep(0.02)
    other = Client(sandbox)
    assert (await other.lease(fence=9, nonce="o" * 32)).status_code == 200
    assert (await running).json()["type"] == "Fenced"
    assert not os.path.exists(f"/proc/{int((tmp_path / 'pid').read_text())}")


async def test_read_edit_glob_and_grep(client):
    await client.text("write", path="src/a.py", content="one\ntwo\nthree\n")
    await client.text("write", path="src/deep/b.py", content="two\n")
    assert await client.text("read", path="src/a.py", offset=2, limit=1) == "2\ttwo"
    assert await client.text("glob", pattern="src/**/*.py") == "src/a.py\nsrc/deep/b.py"
    assert await client.text("glob", pattern="src/*.py") == "src/a.py"
    assert await client.text("grep", pattern="^tw.$") == "src/a.py:2:two\nsrc/deep/b.py:1:two\n"
    assert await client.text("grep", pattern="two", path="src/deep") == "src/deep/b.py:1:two\n"
    assert await client.text("grep", pattern="absent") == "(no line matches)"
    assert "replaced 1" in await client.text("edit", path="src/a.py", old="two", new="2")
    assert (await client.tool("edit", path="src/a.py", old="e", new="E")).json()["error"]
    assert "replaced 3" in await client.text("edit", path="src/a.py", old="e", new="E", all=True)
    assert (await client.tool("edit", path="src/a.py", old="absent", new="")).json()["error"]


async def test_a_strangers_regular_expression_cannot_hang_us(client):
    await client.text("write", path="a", content="a" * 2000 + "!")
    answer = (await client.tool("grep", timeout=2, pattern="(a+)+$")).json()
    assert answer["timed_out"] or answer["exit_code"] in (0, 1)


async def test_a_pattern_is_never_a_command(client, tmp_path):
    await client.tool("grep", pattern=f"'; touch {tmp_path}/pwned; '")
    await client.tool("grep", pattern="x", path="$(touch pwned)")
    assert not (tmp_path / "pwned").exists()
    assert "(no file matches)" in await client.text("glob", pattern="pwned")


async def test_an_undeletable_tree_is_wiped_all_the_same(client, sandbox):
    await client.text("bash", command="mkdir -p d/e; touch d/e/f; chmod 500 d/e; chmod 000 d")
    assert (await client.lease(fence=3, nonce="w" * 32)).status_code == 200
    assert list(sandbox.workspace.root.iterdir()) == []
