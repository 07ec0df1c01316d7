"""What an entry about a timestamp says, which files it names, and what no file may be called."""

from __future__ import annotations

import dataclasses
import json

import pytest
import timestamps
from logs import TestLog

from folkmoot_core.errors import Invalid
from folkmoot_core.ledger import anchor, export
from folkmoot_core.ledger.anchor import Stamp

LOG = TestLog().publish()
STAMP, FILES = timestamps.stamped(timestamps.forger(), LOG.files["checkpoint"])


def test_an_entry_reads_back_as_it_was_made() -> None:
    assert anchor.read(STAMP.data()) == STAMP
    assert STAMP.paths() == [
        "checkpoints/1", "anchors/1.honest.tsr", "anchors/1.honest.tsq", f"anchors/honest.{STAMP.certificates[7:19]}.pem",
    ]  # fmt: skip
    assert all(anchor.is_path(path) for path in [*STAMP.paths(), anchor.CLOSING])
    assert STAMP.entry_id == "anchor/1/honest"


@pytest.mark.parametrize(
    "path",
    [
        "", "checkpoint", "checkpoints/", "checkpoints/0", "checkpoints/01", "checkpoints/../log.key", "checkpoints/1.new", "anchors/",
        "anchors/../log.key", "anchors/honest.pem", "anchors/honest.0123456789AB.pem", "anchors/1..tsr", "anchors/1.honest.tsx",
        "anchors/1.Honest.tsr", "anchors/0.honest.tsr", "anchors/1.honest.tsr\n", "anchors/closing.json/x", "log.key",
    ],
)  # fmt: skip
def test_what_no_file_is_called(path: str) -> None:
    assert not anchor.is_path(path)


def test_two_certificates_of_one_authority_have_two_names() -> None:
    renewed, _ = timestamps.stamped(timestamps.forger(timestamps.Leaf(serial=78), timestamps.key(3)), LOG.files["checkpoint"])
    assert renewed.pem != STAMP.pem


def test_a_closing_file_reads_back() -> None:
    other = dataclasses.replace(STAMP, authority="second")
    assert anchor.read_closing(anchor.write_closing([STAMP, other])) == [STAMP, other]
    assert anchor.read_closing(None) == []


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[]", b'{"anchors":[1]}', b'{"anchors":[{}]}', b"[" * 10_000, b"\xff", b" " * 70_000]
)
def test_a_closing_file_that_is_none(content: bytes) -> None:
    with pytest.raises(Invalid, match=r"closing\.json|names no size"):
        anchor.read_closing(content)


async def test_an_export_has_the_files_and_a_command_for_each_that_is_whole() -> None:
    log = TestLog()
    log.add("anchor", by="core/ledger", data=STAMP.data())
    log.add("anchor", by="core/ledger", data={**STAMP.data(), "authority": "../evil"})
    log.add("anchor", by="core/ledger", data={**STAMP.data(), "authority": "absent"})
    closed = dataclasses.replace(STAMP, authority="last")
    beside = {path.replace("honest", "last"): data for path, data in FILES.items()}
    log.publish().files |= {**FILES, **beside, anchor.CLOSING: anchor.write_closing([closed])}

    async def read(path: str) -> bytes | None:
        return log.files.get(path)

    found = {path: data async for path, data in export.members(read)}
    assert found == {**log.files, "README.txt": found["README.txt"]}
    page = found["README.txt"].decode()
    assert page.count("openssl ts -verify -data checkpoints/1 ") == 2
    pem = STAMP.pem
    assert f"-in anchors/1.honest.tsr -CAfile {pem} -untrusted {pem} -attime {int(timestamps.NOW.timestamp())}\n" in page
    assert "evil" not in page
    assert "absent" not in page
    log.files[anchor.CLOSING] = json.dumps({"anchors": "x"}).encode()
    assert anchor.CLOSING in {path async for path, _ in export.members(read)}


def test_without_timestamps_the_page_says_so() -> None:
    assert "no timestamps by a third party" in export.readme()
    assert "no timestamps by a third party" in export.readme(iter(list[Stamp]()))
