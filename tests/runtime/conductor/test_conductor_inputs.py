"""Inputs of a session: text, and a tar that may be hostile."""

from __future__ import annotations

import base64
import io
import tarfile
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from folkmoot_core.errors import Invalid
from folkmoot_runtime.conductor import inputs
from folkmoot_runtime.conductor.blobs import plain_path
from folkmoot_runtime.conductor.inputs import unpack


def tar_of(*members: tuple[str, bytes | None] | tarfile.TarInfo, form: int = tarfile.PAX_FORMAT) -> bytes:
    """A tar of (name, content) pairs (None: a directory) or raw members."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
                continue
            name, content = member
            info = tarfile.TarInfo(name)
            if content is None:
                info.type = tarfile.DIRTYPE
                archive.addfile(info)
            else:
                info.size, info.mode = len(content), 0o755 if name.endswith(".sh") else 0o644
                archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def test_plain_files_come_out() -> None:
    files = unpack(tar_of((".", None), ("./src", None), ("./src/a.py", b"a"), ("run.sh", b"#!"), ("empty", b"")), "tar")
    assert {path: (f.content, f.executable) for path, f in files.items()} == {
        "src/a.py": (b"a", False), "run.sh": (b"#!", True), "empty": (b"", False),
    }  # fmt: skip


@pytest.mark.parametrize(
    "member",
    [
        ("../escape", b"x"), ("/etc/passwd", b"x"), ("a/../../b", b"x"), ("a//b", b"x"), ("a/./b", b"x"), ("a\\b", b"x"), ("a\nb", b"x"),
        ("..", None), ("/abs", None), ("x" * 1100, b"x"),
        special("link", tarfile.SYMTYPE, "/etc"), special("hard", tarfile.LNKTYPE, "a"), special("dev", tarfile.CHRTYPE),
        special("block", tarfile.BLKTYPE), special("pipe", tarfile.FIFOTYPE), special("odd", b"Z"),
    ],
    ids=lambda member: member.name if isinstance(member, tarfile.TarInfo) else str(member)[:20],
)  # fmt: skip
def test_whatever_is_no_plain_file_refuses_the_whole(member: Any) -> None:
    with pytest.raises(Invalid):
        unpack(tar_of(("good", b"x"), member), "tar")


@pytest.mark.parametrize(
    "members",
    [(("a", b"1"), ("a", b"2")), (("a", b"1"), ("./a", b"2")), (("a", b"1"), ("a/b", b"2")), (("a/b", b"1"), ("a", b"2"))],
)
def test_two_meanings_of_a_path_are_refused(members: Any) -> None:
    with pytest.raises(Invalid):
        unpack(tar_of(*members), "tar")


def test_too_many_files_are_refused() -> None:
    assert len(unpack(tar_of(*((f"f{n}", b"") for n in range(inputs.MAX_FILES))), "tar")) == inputs.MAX_FILES
    with pytest.raises(Invalid):
        unpack(tar_of(*((f"f{n}", b"") for n in range(inputs.MAX_FILES + 1))), "tar")
    with pytest.raises(Invalid):
        unpack(tar_of(*((f"d{n}", None) for n in range(inputs.MAX_MEMBERS + 1))), "tar")


def test_a_size_that_is_not_there_is_refused() -> None:
    info = tarfile.TarInfo("big")
    info.size = 5 * 1024**3
    with pytest.raises(Invalid):
        unpack(info.tobuf() + b"\0" * 1024, "tar")
    short = tarfile.TarInfo("short")
    short.size = 4096
    with pytest.raises(Invalid):
        unpack(short.tobuf() + b"x" * 100, "tar")


def test_sparse_files_are_refused() -> None:
    info = tarfile.TarInfo("sparse")
    info.type = tarfile.GNUTYPE_SPARSE
    with pytest.raises(Invalid):
        unpack(info.tobuf(tarfile.GNU_FORMAT) + b"\0" * 1024, "tar")
    pax = tarfile.TarInfo("sparse")
    pax.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(10**12)}
    with pytest.raises(Invalid):
        unpack(pax.tobuf(tarfile.PAX_FORMAT) + b"1\n0\n0\n".ljust(512, b"\0") + b"\0" * 1024, "tar")


@pytest.mark.parametrize("data", [b"", b"no tar", b"\x1f\x8b\x08" + b"\0" * 600, b"\xff" * 2048])
def test_what_is_no_tar_is_refused(data: bytes) -> None:
    with pytest.raises(Invalid):
        unpack(data, "tar")


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_damaged_tar_gives_plain_files_or_a_sentence(data: st.DataObject) -> None:
    whole = bytearray(tar_of(("a/b.py", b"x" * 700), ("c", b""), ("long" * 40, b"y")))
    for _ in range(data.draw(st.integers(1, 8))):
        whole[data.draw(st.integers(0, min(len(whole), 3000) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(whole)))
    try:
        files = unpack(bytes(whole[:cut]), "tar")
    except Invalid:
        return
    assert all(plain_path(path) for path in files)
    assert sum(len(f.content) for f in files.values()) <= inputs.MAX_BYTES


@pytest.mark.looptime
async def test_text_becomes_references_and_a_tar_the_workspace(world: Any, make: Any) -> None:
    seen: list[Any] = []
    world.replies["ana"] = lambda task: (seen.append(task), make.say(task))[1]
    given_inputs = {
        "contract": {"text.md": b64("Verträge".encode()), "raw": b64(b"\xff\xfe")},
        "repo": {"src.tar": b64(tar_of(("a.py", b"print(1)")))},
    }
    order = make.order(kind="Agent", target="ana", inputs=given_inputs)
    async with world.running() as conductor:
        await conductor.documents.put(make.document())
        await conductor.sessions.accept(order)
        await world.ended(conductor)
        (task,) = seen
        assert [(i.name, i.media) for i in task.inputs] == [
            ("contract/raw", "application/octet-stream"), ("contract/text.md", "text/plain; charset=utf-8"),
        ]  # fmt: skip
        assert await conductor.artefacts.get(task.inputs[1].digest) == "Verträge".encode()
        files = await conductor.artefacts.files(task.workspace)
        assert files["a.py"].content == b"print(1)"
        row = await conductor.sessions.find("review")
    assert row.order.inputs == {}


@pytest.mark.looptime
@pytest.mark.parametrize(
    "given_inputs",
    [
        {"a": {"x": "not base64!"}},
        {"a": {"x.tar": b64(b"no tar")}},
        {"a": {"x.tar": b64(tar_of(("f", b"")))}, "b": {"y.tar": b64(tar_of(("f", b"")))}},
        {"a": {"x": b64(b"x" * (inputs.MAX_BYTES + 1))}},
    ],
    ids=["base64", "tar", "two", "large"],
)
async def test_a_session_with_unusable_inputs_is_not_accepted(world: Any, make: Any, given_inputs: Any) -> None:
    async with world.running() as conductor:
        with pytest.raises(Invalid, match="input"):
            await conductor.sessions.accept(make.order(inputs=given_inputs))
        assert conductor.sessions.open_reports() == []
