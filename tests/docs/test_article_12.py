"""docs/article-12.md is what the law map says, and the map names what there is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest

from folkmoot_cli.ledger_coverage import map_page
from folkmoot_cli.main import main
from folkmoot_core.entries import EntryType
from folkmoot_core.ledger import law
from folkmoot_core.ledger.coverage import _CHECKS

PAGE = Path(__file__).parents[2] / "docs/article-12.md"


def test_the_page_is_what_the_map_says(capsys: pytest.CaptureFixture[str]) -> None:
    assert PAGE.read_text() == map_page(), "make it anew: folkmoot ledger coverage --map > docs/article-12.md"
    assert main(["ledger", "coverage", "--map"]) == 0
    assert capsys.readouterr().out == map_page()


def test_it_says_support_and_not_compliance() -> None:
    words = PAGE.read_text().lower()
    assert not re.search(r"\bcompl(y|ies|iant|iance)\b|immutable|guarantee", words)
    assert "the law asks for automatic recording, not for tamper evidence" in words
    assert "a lawyer must confirm" in words
    assert "drafts: pren 18229-1" in words


@pytest.mark.parametrize("clause", law.CLAUSES, ids=lambda clause: clause.id)
def test_a_clause_names_kinds_and_checks_that_there_are(clause: law.Clause) -> None:
    assert set(clause.kinds) <= set(get_args(EntryType))
    assert clause.checks
    assert set(clause.checks) <= set(_CHECKS)
    assert clause.says
