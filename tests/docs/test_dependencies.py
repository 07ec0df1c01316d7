"""docs/dependencies.md against the truth: pyproject, the Go modules, the package lists, and who really imports what."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
PRODUCT = ("core", "operator", "agents-image", "cli")
MODULES = {
    "pyjwt": "jwt",
    "prometheus-client": "prometheus_client",
    "pyyaml": "yaml",
    "google-genai": "google",
    "rfc3161-client": "rfc3161_client",
}
CLUSTER = ROOT / "e2e" / "cluster"


def _rows(section: str) -> dict[str, list[str]]:
    """The table of a section: name → the other cells."""
    text = PAGE.split(f"## {section}\n", 1)[1].split("\n## ", 1)[0]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("| `")]
    return {row[0].strip("`"): row[1:] for row in cells}


def _requirements(lines: list[str]) -> set[str]:
    return {re.split(r"[\[<>=!~ ;]", line, maxsplit=1)[0].lower() for line in lines}


PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS: dict[str, list[str]] = PROJECT["project"]["optional-dependencies"]


def test_the_products_dependencies_are_listed_with_their_extras():
    wanted: dict[str, set[str]] = {name: {"core"} for name in _requirements(PROJECT["project"]["dependencies"])}
    for extra, lines in EXTRAS.items():
        for name in _requirements(lines) if extra != "test" else ():
            wanted.setdefault(name, set()).add(extra)
    listed = {name: set(cells[0].split(", ")) for name, cells in _rows("Python, in the product").items()}
    assert listed == wanted


def test_the_tools_are_listed():
    wanted = _requirements(EXTRAS["test"]) | _requirements(PROJECT["build-system"]["requires"])
    assert set(_rows("Python, for tests and tools")) == wanted


def test_every_line_has_a_licence_and_a_reason():
    for section in ("Python, in the product", "Python, for tests and tools", "Go modules", "Debian packages"):
        assert [name for name, cells in _rows(section).items() if not all(cells)] == [], section


def _imports(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.split(".")[0]


@pytest.fixture(scope="module")
def importers() -> dict[str, set[str]]:
    """Module → files of the product that import it."""
    found: dict[str, set[str]] = {}
    for part in PRODUCT:
        for file in (ROOT / part).rglob("*.py"):
            for module in set(_imports(file)):
                found.setdefault(module, set()).add(str(file.relative_to(ROOT)))
    return found


@pytest.mark.parametrize("name", sorted(_rows("Python, in the product")))
def test_a_dependency_is_imported_where_the_page_says_and_nowhere_else(name: str, importers: dict[str, set[str]]):
    places = re.findall(r"`([^`]+)`", _rows("Python, in the product")[name][3])
    files = importers.get(MODULES.get(name, name), set())
    assert sorted(file for file in files if not file.startswith(tuple(places) or ("-",))) == [], "imported, not listed"
    assert [place for place in places if not any(file.startswith(place) for file in files)] == [], "listed, not imported"


def _go_requirements(module: str) -> set[str]:
    text = (CLUSTER / module / "go.mod").read_text()
    return {line.split()[0] for line in re.findall(r"^(?:require )?\s*(\S+ v\S+)$", text, re.MULTILINE)}


def _constant(file: str, name: str) -> object:
    """A module's literal, read without running it."""
    tree = ast.parse((CLUSTER / "lib" / "folkmoot_cluster" / file).read_text())
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            return ast.literal_eval(node.value)  # type: ignore[union-attr,arg-type]
    raise AssertionError(f"{file} has no {name}")


def test_go_modules_are_listed():
    tools = _constant("tools.py", "TOOLS")
    assert isinstance(tools, dict)
    built = {re.sub(r"/(cmd|internal)/\w+$", "", package) for package, _ in tools.values() if package}
    replaced = re.compile(r" => ")
    assert not any(replaced.search(name) for name in built)
    assert (
        set(_rows("Go modules"))
        == _go_requirements("node")
        | _go_requirements("coredns")
        | _go_requirements("pause")
        | _go_requirements("../judges")
        | built
    )


def test_debian_packages_are_listed():
    machine, image, judges = (_constant("host.py", name) for name in ("PACKAGES", "IMAGE_PACKAGES", "JUDGE_PACKAGES"))
    base = _constant("images.py", "INCLUDED")
    assert isinstance(machine, dict)
    assert isinstance(image, dict)
    assert isinstance(judges, dict)
    assert isinstance(base, tuple)
    assert set(_rows("Debian packages")) == {*machine.values(), *image.values(), *judges.values(), *base}
