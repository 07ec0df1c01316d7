"""Tables for people, JSON and YAML for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

FORMATS = ("table", "json", "yaml")


def console() -> Console:
    """Where people read; plain when it is not a terminal."""
    return Console(highlight=False, soft_wrap=True)


def emit(rows: Sequence[dict[str, Any]], columns: Sequence[tuple[str, str]], form: str) -> None:
    """Print rows as a table of (header, key) columns, or whole as JSON or YAML."""
    if form == "json":
        sys.stdout.write(json.dumps(list(rows), indent=2) + "\n")
        return
    if form == "yaml":
        sys.stdout.write(yaml.safe_dump(list(rows), sort_keys=False))
        return
    sys.stdout.write(table(rows, columns))


def table(rows: Sequence[dict[str, Any]], columns: Sequence[tuple[str, str]]) -> str:
    """kubectl's manner: capitals, two blanks between columns, no lines."""
    cells = [[header for header, _ in columns]] + [[_cell(row.get(key)) for _, key in columns] for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    return "".join("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() + "\n" for line in cells)


def _cell(value: Any) -> str:
    if value is None or value == "":
        return "-"
    return str(value)


def rich_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A titled table for the screens of `dev` and the demo."""
    made = Table(title=title, title_justify="left", title_style="bold", header_style="dim", box=None, pad_edge=False)
    for column in columns:
        made.add_column(column)
    for row in rows:
        made.add_row(*row)
    return made
