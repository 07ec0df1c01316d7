"""`folkmoot verify`: what it accepts, and that it finds every kind of tampering, even by the holder of the key."""

from __future__ import annotations

import asyncio
import json
import socket
import tarfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from folkmoot_cli import verify
from folkmoot_cli.main import main
from folkmoot_core.canonical import canonical_json, commit, sha256_hex
from folkmoot_core.entries import GENESIS_PREV, Actor, Payload, Producer, new_entry
from folkmoot_core.errors import Invalid, Unauthorized
from folkmoot_core.ledger import bundle, export, tiles
from folkmoot_core.ledger.audit import Report
from folkmoot_core.ledger.checkpoint import Checkpoint
from folkmoot_core.ledger.note import Ed25519Signer
from folkmoot_core.ledger.tiles import ENTRIES, Rows
from folkmoot_core.ledger.tree import leaf_hash
from folkmoot_runtime import web
from folkmoot_runtime.ledger.export import export_tar, write_directory
from folkmoot_runtime.ledger.twin import MemoryLog

CONDUCTOR = Producer(id="core/conductor")
SERVICE = Actor(kind="service", id="conductor")
SALT = b"s" * 32
CONTENT = b"what was decided"
Entries = list[dict[str, Any]]


async def filled(size: int) -> MemoryLog:
    """A log of `size` entries, the second of which commits to CONTENT."""
    log = MemoryLog("acme")
    payload = Payload(commit=commit(SALT, CONTENT), size=len(CONTENT))
    requests = [
        new_entry("session.start", SERVICE, id=f"request-{n}", data={"n": n}, now=float(n), payload=payload if n == 1 else None)
        for n in range(1, size)
    ]
    if requests:
        await log.append(requests, CONDUCTOR)
    await log.publish()
    return log


@pytest.fixture
async def log() -> MemoryLog:
    return await filled(300)


@pytest.fixture
async def directory(log: MemoryLog, tmp_path: Path) -> Path:
    await write_directory(log.read, tmp_path / "log")
    return tmp_path / "log"


def failing(report: Report) -> set[str]:
    return {check.name for check in report.checks if not check.ok}


def checked(directory: Path, key: str | None = None) -> Report:
    with verify.open_source(str(directory)) as read:
        return verify.verify(read, key)


async def test_a_whole_log_holds(directory: Path, log: MemoryLog) -> None:
    report = checked(directory, log.vkey)
    assert report.ok, verify.render(report)
    assert [check.name for check in report.checks] == ["checkpoint", "entries", "links", "ids", "opening", "tiles", "root"]
    assert report.types == {"log.opened": 1, "session.start": 299}
    assert report.producers == {"core/ledger": 1, "core/conductor": 299}
    assert report.tenant == "acme"
    assert report.first <= report.last


@pytest.mark.parametrize("size", [1, 2, 255, 256, 257, 600])
async def test_logs_of_every_shape_hold(tmp_path: Path, size: int) -> None:
    log = await filled(size)
    await write_directory(log.read, tmp_path)
    assert checked(tmp_path, log.vkey).ok


def test_the_command_says_it_to_people_and_programs(directory: Path, log: MemoryLog, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(directory)]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"VERIFIED  {log.origin}")
    assert "not whose it is" in said
    (directory / "key").write_text(log.vkey + "\n")
    for key in (log.vkey, str(directory / "key")):
        assert main(["verify", str(directory), "--key", key]) == 0
        assert "not whose it is" not in capsys.readouterr().out
    assert main(["verify", str(directory), "-o", "json", "--key", log.vkey]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["ok"], found["size"], found["origin"], found["keyGiven"]) == (True, 300, log.origin, True)


def test_the_command_fails_when_a_check_does(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = directory / "tile/0/000"
    file.write_bytes(bytes(32) + file.read_bytes()[32:])
    assert main(["verify", str(directory)]) == 1
    said = capsys.readouterr().out
    assert said.startswith("NOT VERIFIED")
    assert "tile/0/000 differs" in said


async def test_what_a_log_says_of_itself_moves_no_cursor(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = MemoryLog("acme\x1b[2F\x1b[2KVERIFIED\r\nVERIFIED")
    await log.publish()
    await write_directory(log.read, tmp_path)
    assert main(["verify", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "acme\N{REPLACEMENT CHARACTER}[2F" in said
    assert [line for line in said.splitlines() if "VERIFIED" in line] == said.splitlines()[:2]
    assert said.replace("\n", "").isprintable()


@pytest.mark.parametrize(
    "words", [["/nonexistent"], ["."], ["--key", "/nonexistent/key", "."], ["--ca-file", "/none", "https://127.0.0.1:1/"]]
)
def test_what_cannot_be_checked_is_no_verdict(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["verify", *words]) == 3
    assert capsys.readouterr().err.startswith("folkmoot verify: ")


# -- tampering by somebody without the key ------------------------------------------------------------------------------


def is_found(directory: Path, vkey: str) -> bool:
    """Whether verification says that something is wrong: as a check that does not hold, or as a file that is none."""
    try:
        return not checked(directory, vkey).ok
    except Invalid:
        return True


def test_every_flipped_byte_of_every_file_is_found(directory: Path, log: MemoryLog) -> None:
    files = sorted(p for p in directory.rglob("*") if p.is_file() and p.name not in ("README.txt", "log.vkey"))
    assert len(files) == 8
    for file in files:
        whole = file.read_bytes()
        step = max(1, len(whole) // 12)
        for position in [*range(0, len(whole), step), len(whole) - 1]:
            file.write_bytes(whole[:position] + bytes([whole[position] ^ 4]) + whole[position + 1 :])
            assert is_found(directory, log.vkey), f"{file.name} byte {position}"
        file.write_bytes(whole[:-1] if file.name != "log.mldsa.vkey" else whole[:-2])  # a key's last line feed says nothing
        assert is_found(directory, log.vkey)
        if file.name not in ("checkpoint", "policy", "log.mldsa.vkey"):  # the last two are for who wants to check more
            file.unlink()
            assert is_found(directory, log.vkey)
        file.write_bytes(whole)
    assert checked(directory, log.vkey).ok


def test_a_full_tile_stands_in_for_its_beginning(directory: Path, log: MemoryLog) -> None:
    """Partial tiles may be deleted once the full one exists (tlog-tiles); 300 entries end in tiles of width 44."""
    signed = Checkpoint(log.origin, 100, log._state.rows.root(100)).sign(log._keys.signers(0))
    (directory / "checkpoint").write_bytes(signed)
    assert checked(directory, log.vkey).ok


def test_another_logs_key_is_refused(directory: Path) -> None:
    other = Ed25519Signer.from_seed("folkmoot/other", b"o" * 32).verifier().vkey()
    assert failing(checked(directory, other)) == {"checkpoint"}


def test_a_checkpoint_of_another_origin_is_refused(directory: Path, log: MemoryLog) -> None:
    foreign = Checkpoint("folkmoot/other", 300, log._state.rows.root()).sign(log._keys.signers(0))
    (directory / "checkpoint").write_bytes(foreign)
    assert failing(checked(directory, log.vkey)) == {"checkpoint"}


# -- tampering by the holder of the key: the tree is right, the entries are not --------------------------------------------


def rewritten(directory: Path, log: MemoryLog, change: Callable[[Entries], None], *, link: bool = True) -> Report:
    """Change entries, then link, hash and sign all anew."""
    entries: Entries = [json.loads(entry) for entry in log._entries[:20]]
    change(entries)
    encoded: list[bytes] = []
    previous = GENESIS_PREV
    for position, value in enumerate(entries):
        if link:
            value.update(prev=previous, seq=position)
        encoded.append(value["raw"] if "raw" in value else canonical_json(value))
        previous = leaf_hash(encoded[-1]).hex()
    rows = Rows()
    rows.extend([leaf_hash(entry) for entry in encoded])
    signed = Checkpoint(log.origin, len(encoded), rows.root()).sign(log._keys.signers(0))
    (directory / "checkpoint").write_bytes(signed)
    for tile in tiles.tiles_of(len(encoded)):
        data = bundle.encode(encoded) if tile.level == ENTRIES else rows.tile(tile)
        assert data is not None
        (directory / tile.path()).parent.mkdir(exist_ok=True)
        (directory / tile.path()).write_bytes(data)
    return checked(directory, log.vkey)


def test_rewriting_by_itself_is_not_what_fails(directory: Path, log: MemoryLog) -> None:
    assert rewritten(directory, log, lambda entries: None).ok


CHANGES: dict[str, tuple[str, bool, Callable[[Entries], Any]]] = {
    "an entry left out": ("links", False, lambda e: e.pop(7)),
    "two entries swapped": ("links", False, lambda e: e.insert(5, e.pop(6))),
    "a link changed": ("links", False, lambda e: e[7].update(prev="0" * 64)),
    "a position changed": ("links", False, lambda e: e[7].update(seq=8)),
    "another log's entry": ("links", True, lambda e: e[7].update(origin="folkmoot/other")),
    "another version": ("links", True, lambda e: e[7].update(v=2)),
    "version true": ("links", True, lambda e: e[7].update(v=True)),
    "no JSON": ("links", True, lambda e: e[7].update(raw=b"hello")),
    "nesting": ("links", True, lambda e: e[7].update(raw=b"[" * 50_000)),
    "JSON written otherwise": ("links", True, lambda e: e[19].update(raw=json.dumps({**e[19], "seq": 19}).encode())),
    "no recorder": ("links", True, lambda e: e[7].pop("obs")),
    "an id twice": ("ids", True, lambda e: e[7]["ce"].update(id=e[6]["ce"]["id"])),
    "no opening": ("opening", True, lambda e: e.pop(0)),
    "two openings": ("opening", True, lambda e: e[7]["ce"].update(type=e[0]["ce"]["type"])),
    "another key opened": ("opening", True, lambda e: e[0]["data"].update(vkey="x")),
    "no key opened": ("opening", True, lambda e: e[0].update(data=[])),
    "life after closing": ("opening", True, lambda e: e[7]["ce"].update(type="dev.folkmoot.audit.log.closed.v1")),
}


@pytest.mark.parametrize("what", CHANGES)
def test_the_keys_holder_is_found_out(directory: Path, log: MemoryLog, what: str) -> None:
    check, link, change = CHANGES[what]
    report = rewritten(directory, log, change, link=link)
    assert failing(report) == {check}, verify.render(report)


def test_a_long_list_of_findings_is_counted(directory: Path, log: MemoryLog, capsys: pytest.CaptureFixture[str]) -> None:
    def all_foreign(entries: Entries) -> None:
        for entry in entries:
            entry.update(origin="folkmoot/other", v=7)

    report = rewritten(directory, log, all_foreign)
    assert failing(report) == {"links", "opening"}  # entry 0 names keys that bear this log's name
    assert "and 20 more" in verify.render(report)


def test_a_log_without_any_key_is_no_verdict(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (directory / "log.vkey").unlink()
    assert main(["verify", str(directory)]) == 3
    assert "no key" in capsys.readouterr().err


def test_a_log_without_a_checkpoint_is_no_verdict(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (directory / "checkpoint").unlink()
    assert main(["verify", str(directory)]) == 3
    assert "no checkpoint" in capsys.readouterr().err


def test_an_empty_log_is_not_accepted(directory: Path, log: MemoryLog) -> None:
    report = rewritten(directory, log, lambda entries: entries.clear())
    assert failing(report) == {"opening"}


def test_a_closing_is_mentioned(directory: Path, log: MemoryLog) -> None:
    report = rewritten(directory, log, lambda e: e[19]["ce"].update(type="dev.folkmoot.audit.log.closed.v1"))
    assert report.ok
    assert "closed" in verify.render(report)


# -- openings -----------------------------------------------------------------------------------------------------------


def bundle_with(directory: Path, **changes: Any) -> Path:
    """Openings as the conductor exports them."""
    opening = {"commit": commit(SALT, CONTENT), "salt": SALT.hex(), "digest": f"sha256:{sha256_hex(CONTENT)}", **changes}
    (directory / "artifacts").mkdir(exist_ok=True)
    (directory / "artifacts/openings.jsonl").write_text(json.dumps(opening) + "\n")
    (directory / "artifacts" / sha256_hex(CONTENT)).write_bytes(CONTENT)
    return directory


def test_openings_are_held_against_the_entries(directory: Path, log: MemoryLog) -> None:
    report = checked(bundle_with(directory), log.vkey)
    assert report.ok
    assert "artifacts/openings.jsonl: 1 commitments opened" in report.notes


@pytest.mark.parametrize(
    "changes",
    [
        {"salt": "00" * 32},
        {"salt": "00"},
        {"salt": None},
        {"commit": "0" * 64},
        {"digest": "sha256:../../x"},
        {"commit": 5},
        {"digest": ""},
    ],
)
def test_an_opening_that_does_not_open_fails(directory: Path, log: MemoryLog, changes: dict[str, Any]) -> None:
    assert failing(checked(bundle_with(directory, **changes), log.vkey)) == {"openings"}


def test_changed_content_fails_and_missing_content_is_said(directory: Path, log: MemoryLog) -> None:
    content = bundle_with(directory) / "artifacts" / sha256_hex(CONTENT)
    content.write_bytes(CONTENT + b".")
    assert failing(checked(directory, log.vkey)) == {"openings"}
    content.unlink()
    report = checked(directory, log.vkey)
    assert report.ok
    assert "artifacts/openings.jsonl: 1 openings have no content here" in report.notes


def test_an_opening_of_no_entry_proves_nothing_and_is_said(directory: Path, log: MemoryLog) -> None:
    report = checked(bundle_with(directory, commit=commit(b"t" * 32, CONTENT), salt=(b"t" * 32).hex()), log.vkey)
    assert report.ok
    assert "artifacts/openings.jsonl: 0 commitments opened" in report.notes
    assert any("belong to no entry" in note for note in report.notes)


@pytest.mark.parametrize("line", ["{", "[]", "[" * 3000, "x" * 5000])
def test_malformed_openings_fail(directory: Path, log: MemoryLog, line: str) -> None:
    bundle_with(directory)
    (directory / "artifacts/openings.jsonl").write_text(line + "\n")
    assert failing(checked(directory, log.vkey)) == {"openings"}


def test_further_openings_name_files_beside_them(directory: Path, log: MemoryLog, tmp_path: Path) -> None:
    opening = {"commit": commit(SALT, CONTENT), "salt": SALT.hex(), "path": "decision.txt"}
    (tmp_path / "decision.txt").write_bytes(CONTENT)
    openings = tmp_path / "mine.jsonl"
    openings.write_text(json.dumps(opening))
    assert main(["verify", str(directory), "--key", log.vkey, "--open", str(openings)]) == 0
    (tmp_path / "decision.txt").write_bytes(b"another decision")
    assert main(["verify", str(directory), "--key", log.vkey, "--open", str(openings)]) == 1
    openings.write_text(json.dumps({**opening, "path": "../../etc/passwd"}))
    assert main(["verify", str(directory), "--key", log.vkey, "--open", str(openings)]) == 1


# -- sources ------------------------------------------------------------------------------------------------------------


async def test_a_tar_as_the_conductor_exports_it(log: MemoryLog, tmp_path: Path) -> None:
    path = tmp_path / "evidence.tar"
    with path.open("wb") as file:
        async for chunk in export_tar(log.read):
            file.write(chunk)
        opening = {"commit": commit(SALT, CONTENT), "salt": SALT.hex(), "digest": f"sha256:{sha256_hex(CONTENT)}"}
        file.write(export.tar_member(f"artifacts/{sha256_hex(CONTENT)}", CONTENT))
        file.write(export.tar_member("artifacts/openings.jsonl", json.dumps(opening).encode()))
        file.write(export.TAR_END)
    report = checked(path, log.vkey)
    assert report.ok
    assert "artifacts/openings.jsonl: 1 commitments opened" in report.notes
    with tarfile.open(path) as archive:
        names = archive.getnames()
    assert "README.txt" in names
    assert names.index("checkpoint") > names.index("tile/1/000.p/1")


def test_what_is_no_tar_is_no_verdict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.tar").write_bytes(b"hello" * 1000)
    assert main(["verify", str(tmp_path / "x.tar")]) == 3
    assert "not a tar file" in capsys.readouterr().err


@pytest.fixture
async def served(log: MemoryLog) -> AsyncIterator[str]:
    """The log behind a plain HTTP server that wants the token `secret`."""

    async def files(request: Request) -> Response:
        if request.headers.get("authorization") != "Bearer secret":
            return Response(status_code=401)
        data = None if request.url.path.startswith("/t/artifacts") else await log.read(request.url.path.removeprefix("/t/"))
        return Response(data, status_code=404 if data is None else 200)

    port = free_port()
    server = asyncio.create_task(
        web.serve(web.app([Route("/t/{rest:path}", files)], ready=lambda: True), host="127.0.0.1", port=port)
    )  # fmt: skip
    for _ in range(1000):
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.01)
        else:
            writer.close()
            await writer.wait_closed()
            break
    yield f"http://127.0.0.1:{port}/t"
    server.cancel()
    await asyncio.gather(server, return_exceptions=True)


def free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])


async def test_a_url_with_a_token(served: str, log: MemoryLog, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret\n")

    def ask(token: str | None) -> Report:
        with verify.open_source(served, token) as read:
            return verify.verify(read, log.vkey)

    assert (await asyncio.to_thread(ask, str(tmp_path / "token"))).ok
    with pytest.raises(Unauthorized, match="--token-file"):
        await asyncio.to_thread(ask, None)


def test_a_token_is_not_sent_in_the_clear(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "token").write_text("secret")
    assert main(["verify", "http://ledger.example", "--token-file", str(tmp_path / "token")]) == 3
    said = capsys.readouterr().err
    assert "https only" in said
    assert "secret" not in said


def test_a_server_that_is_not_there_is_no_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", f"http://127.0.0.1:{free_port()}/"]) == 3
    assert "ConnectError" in capsys.readouterr().err
