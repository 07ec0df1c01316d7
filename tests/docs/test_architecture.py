"""What the pages say exists, exists: paths, make targets, commands and their options, links, manifests.

A page that is untrue misleads longer than one that is missing; so whoever moves a file finds out here. style.md §4 no. 11.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from folkmoot_cli.main import COMMANDS, main
from folkmoot_core import names
from folkmoot_core.plan import views
from folkmoot_core.plan.types import Problems
from folkmoot_core.probes import PROBES

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
TOP = "core|operator|agents-image|cli|crds|charts|docs|e2e|tests|bench|examples|requirements"
PATH = re.compile(rf"(?<![\w/.<-])(?:\.ci|(?:{TOP}))/[\w./*-]*[\w*]")
PRODUCERS = {"core/conductor", "core/router"}  # names in the ledger that look like paths
FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
MEASURED = re.compile(r"<!-- measured:begin -->.*?<!-- measured:end -->", re.DOTALL)
SPAN = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
MAKE = re.compile(r"^make ([a-z][\w-]*)")
COMMAND = re.compile(r"^(?:kubectl )?folkmoot ((?:[a-z]+ ?)+)(.*)$")
PARSERS = {
    "Tenant": views.parse_tenant, "Agent": views.parse_agent, "Council": views.parse_council, "GatePolicy": views.parse_gate,
    "Session": views.parse_session,
}  # fmt: skip


@dataclass(frozen=True)
class Page:
    """A page taken apart: `code` are its code spans and the lines of its shell blocks."""

    path: Path

    @property
    def name(self) -> str:
        return str(self.path.relative_to(ROOT))

    @property
    def text(self) -> str:
        # Between the marks stands what make bench has written: not a person's promise.
        return MEASURED.sub("", self.path.read_text(encoding="utf-8"))

    def blocks(self, *languages: str) -> list[str]:
        return [body for language, body in FENCE.findall(self.text) if language in languages]

    def prose(self) -> str:
        return FENCE.sub("", self.text)

    def code(self) -> Iterator[str]:
        yield from SPAN.findall(self.prose())
        for block in self.blocks("sh", "bash", "console"):
            for line in block.replace("\\\n", " ").splitlines():
                yield line.split(" #")[0].strip().removeprefix("$ ")


def _pages() -> list[Page]:
    return [Page(path) for path in PAGES]


@pytest.fixture(params=_pages(), ids=lambda page: page.name)
def page(request: pytest.FixtureRequest) -> Page:
    found: Page = request.param
    return found


def test_the_pages_that_everybody_looks_for_are_there():
    wanted = (
        "README.md",
        "LICENSE",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "docs/architecture.md",
        "docs/dependencies.md",
    )
    assert [name for name in wanted if not (ROOT / name).is_file()] == []


def test_every_path_that_is_named_exists(page: Page):
    named = {path for code in page.code() for path in PATH.findall(code)} - PRODUCERS
    missing = [path for path in sorted(named) if not (list(ROOT.glob(path)) if "*" in path else (ROOT / path).exists())]
    assert missing == [], f"{page.name} names what is not there"


def test_every_relative_link_leads_somewhere(page: Page):
    broken = [target for target in LINK.findall(page.prose()) if not _leads(page.path, target)]
    assert broken == [], f"{page.name} links to what is not there"


def _leads(page: Path, target: str) -> bool:
    if re.match(r"[a-z]+:", target):
        return True
    file, _, anchor = target.partition("#")
    found = (page.parent / file) if file else page
    if not found.exists():
        return False
    return not anchor or anchor in {
        _slug(heading) for heading in re.findall(r"^#+ (.+)$", FENCE.sub("", found.read_text()), re.MULTILINE)
    }


def _slug(heading: str) -> str:
    """A heading's anchor, as forges make it."""
    return re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-")


def test_every_make_target_that_is_named_exists(page: Page):
    targets = set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {match[1] for code in page.code() if (match := MAKE.match(code))}
    assert sorted(named - targets) == [], f"{page.name} names make targets that the Makefile does not have"


def _commands(page: Page) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Subcommands with the options named beside them."""
    found = set()
    for code in page.code():
        if match := COMMAND.match(code):
            words = tuple(match[1].split())[: 2 if match[1].startswith(("session ", "ledger ")) else 1]
            found.add((words, tuple(re.findall(r"(?<!\S)(--[a-z-]+|-[a-zA-Z])\b", match[2]))))
    return sorted(found)


def _all_commands() -> list[tuple[str, tuple[str, ...], tuple[str, ...]]]:
    return [(page.name, words, options) for page in _pages() for words, options in _commands(page)]


@pytest.mark.parametrize(
    ("where", "words", "options"), _all_commands(), ids=lambda value: value if isinstance(value, str) else "-".join(value)
)
def test_every_command_that_is_named_parses(
    where: str, words: tuple[str, ...], options: tuple[str, ...], capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit) as ended:
        main([*words, "--help"])
    shown = capsys.readouterr().out
    assert ended.value.code == 0
    assert [option for option in options if not re.search(rf"(?<!\S){option}\b", shown)] == [], (
        f"{where}: folkmoot {' '.join(words)}"
    )


def test_the_readme_shows_every_command():
    named = {words[0] for words, _ in _commands(Page(ROOT / "README.md"))}
    assert {name for name, _, _ in COMMANDS} - named == set()


def test_the_readme_names_every_probe():
    text = (ROOT / "README.md").read_text()
    assert [shape for shape, _ in PROBES if f"`{shape}`" not in text] == []


def test_manifests_in_the_pages_are_valid(page: Page):
    for block in page.blocks("yaml"):
        for document in yaml.safe_load_all(block):
            if isinstance(document, dict) and document.get("apiVersion") == names.API_VERSION:
                found = PARSERS[document["kind"]](document)
                assert not isinstance(found, Problems), f"{page.name}: {'; '.join(map(str, found.items))}"


def test_the_readme_has_one_table_of_measurements_to_fill():
    text = (ROOT / "README.md").read_text()
    assert [text.count(f"<!-- measured:{end} -->") for end in ("begin", "end")] == [1, 1]
    assert text.index("<!-- measured:begin -->") < text.index("<!-- measured:end -->")


def test_the_doors_table_names_the_ports_of_the_code():
    """The ports stand in the table as numbers, for people; the code's are the truth."""
    table = (ROOT / "docs" / "architecture.md").read_text().split("## Road 1")[0]
    rows = {match[1]: match[0] for match in re.finditer(r"^\| \*\*(\w+)\*\* .*(?:\n\| \| .*)*", table, re.MULTILINE)}
    ports = {
        "operator": (names.PORT_OPERATOR, names.PORT_METRICS), "ledger": (names.PORT_LEDGER,), "router": (names.PORT_ROUTER,),
        "conductor": (names.PORT_CONDUCTOR, names.PORT_CONDUCTOR_OPERATOR), "bus": (names.PORT_BUS,), "broker": (names.PORT_BROKER,),
        "sandbox": (names.PORT_SANDBOX,),
    }  # fmt: skip
    assert {part: [port for port in wanted if str(port) not in rows[part]] for part, wanted in ports.items()} == {
        part: [] for part in ports
    }
