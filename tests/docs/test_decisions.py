"""The decision records: numbered, complete in form, and the list of absent fields is the CRDs' own."""

from __future__ import annotations

import functools
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
RECORDS = sorted((ROOT / "docs" / "decisions").glob("*.md"))
ABSENT = ROOT / "docs" / "decisions" / "0010-fields-that-are-not-in-the-crds-yet.md"


def test_numbers_are_unique_and_without_gaps():
    numbers = Counter(int(record.name[:4]) for record in RECORDS)
    assert dict(numbers) == dict.fromkeys(range(1, len(RECORDS) + 1), 1)


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.name[:4])
def test_a_record_says_what_it_decides_why_and_what_follows(record: Path):
    text = record.read_text()
    assert text.startswith(f"# {record.name[:4]}: ")
    assert re.search(r"^Status: \w+", text, re.MULTILINE)
    headings = set(re.findall(r"^## (.+)$", text, re.MULTILINE))
    assert {"Decision", "Consequences"} <= headings
    assert headings & {"Context", "Question"}
    assert headings & {"Alternatives", "Not chosen"}


def _absent() -> list[tuple[str, str]]:
    rows = re.findall(r"^\| (\w+) \| (`spec.*) \|$", ABSENT.read_text(), re.MULTILINE)
    return [(kind, path) for kind, cell in rows for path in re.findall(r"`([^`]+)`", cell)]


@functools.cache
def _schema(kind: str) -> dict[str, Any]:
    for file in (ROOT / "crds").glob("*.yaml"):
        definition = yaml.safe_load(file.read_text())
        if definition["spec"]["names"]["kind"] == kind:
            found: dict[str, Any] = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
            return found
    raise AssertionError(f"no CRD of kind {kind}")


def _has(schema: dict[str, Any], path: list[str]) -> bool:
    if not path:
        return True
    if "items" in schema:
        return _has(schema["items"], path)
    inner = schema.get("properties", {}).get(path[0])
    return inner is not None and _has(inner, path[1:])


def test_the_list_of_absent_fields_is_read():
    assert {kind for kind, _ in _absent()} == {"Tenant", "Agent", "Council", "GatePolicy", "Session"}
    assert _has(_schema("Council"), ["spec", "members", "weight"])


@pytest.mark.parametrize(("kind", "path"), _absent())
def test_a_field_of_the_list_is_really_absent(kind: str, path: str):
    assert not _has(_schema(kind), path.split(".")), f"{kind} {path} is there now: strike it from {ABSENT.name}"
    assert _has(_schema(kind), path.split(".")[:-1]), f"{kind}: {path} has no parent in the CRD; name the highest absent field"
