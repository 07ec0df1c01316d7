"""docs/kinds/: its manifests are valid, every field has a word, every reason that can be written is explained."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from folkmoot_core import conditions, crd
from folkmoot_core.plan import views
from folkmoot_core.plan.types import Problems

ROOT = Path(__file__).resolve().parents[2]
PAGES = ROOT / "docs" / "kinds"
PARSE = {
    "Tenant": views.parse_tenant, "Agent": views.parse_agent, "Council": views.parse_council, "GatePolicy": views.parse_gate,
    "Session": views.parse_session,
}  # fmt: skip


def page(kind: str) -> str:
    return (PAGES / f"{kind.lower()}.md").read_text()


@pytest.mark.parametrize("kind", PARSE)
def test_the_pages_manifests_are_valid(kind: str) -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", page(kind), re.S)
    assert blocks
    for block in blocks:
        assert not isinstance(PARSE[kind](yaml.safe_load(block)), Problems)


SELF_EXPLAINING = {"currency", "resources", "nodeSelector", "priorityClassName", "priority", "suspend", "viewers"}


@pytest.mark.parametrize("kind", crd.KINDS, ids=lambda kind: kind.kind)
def test_every_field_has_a_word(kind: crd.Kind) -> None:
    text = page(kind.kind)
    fields = {info.alias or name for name, info in kind.spec.model_fields.items()}
    assert {field for field in fields - SELF_EXPLAINING if not re.search(rf"`[\w.]*{field}\b|^  {field}:", text, re.M)} == set()


def reasons() -> set[str]:
    """Reasons in the code: second argument of the makers of conditions, and the constants."""
    found = {value for name, value in vars(conditions).items() if name.startswith("REASON_")} | set(conditions.STALLED_REASONS)
    for folder in ("core/folkmoot_core/plan", "operator/folkmoot_operator/reconcile"):
        for path in (ROOT / folder).glob("*.py"):
            text = path.read_text()
            found |= set(re.findall(r"\b(?:true|false|unknown|Condition)\(\s*[\w\".]+,\s*\"([A-Z]\w+)\"", text))
            found |= set(re.findall(r"_stalled\(\s*\"([A-Z]\w+)\"", text))
            found |= set(re.findall(r"\breason=\"([A-Z]\w+)\"", text))
    return found


def test_every_reason_is_explained() -> None:
    text = "".join(path.read_text() for path in PAGES.glob("*.md"))
    found = reasons()
    assert len(found) > 30  # the expressions above still find them
    assert sorted(reason for reason in found if f"`{reason}`" not in text) == []
