"""What was verified last, in a file of the reader's: `folkmoot verify --state FILE` demands that the log only grew since.

It is the reader's memory, so nobody who rewrites the log can rewrite it. Written whole or not at all, and only after a
verification in which every check held.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path

from folkmoot_cli.sources import read_file
from folkmoot_core.errors import Invalid
from folkmoot_core.ledger import checkpoint, note
from folkmoot_core.ledger.audit import Seen
from folkmoot_core.ledger.findings import Report


def load(path: Path) -> Seen | None:
    """What was seen; None before the first time. Raises `Invalid` for a file that is something else: it is not overwritten."""
    if not path.exists():
        return None
    try:
        value = json.loads(read_file(path))
        signed = value["checkpoint"].encode()
        found = checkpoint.parse(note.split(signed)[0])
        same = (value["origin"], value["size"], value["root"]) == (found.origin, found.size, found.root.hex())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, Invalid) as error:
        raise Invalid(f"{path} is no state of `folkmoot verify`: expected origin, size, root and checkpoint as JSON") from error
    if not same:
        raise Invalid(f"{path}: its origin, size and root are not those of the checkpoint in it; it was changed by hand")
    return Seen(found.origin, found.size, found.root)


def save(path: Path, report: Report) -> None:
    """Remember the report's checkpoint."""
    point = report.checkpoint
    if point is None or not report.ok:
        return
    value = {"origin": point.origin, "size": point.size, "root": point.root.hex(), "checkpoint": report.signed.decode()}
    replace(path, (json.dumps(value, indent=2) + "\n").encode())


def replace(path: Path, data: bytes) -> None:
    """Write a file that appears whole or not at all, and stays after a power cut. Raises `Invalid` with the system's word."""
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        with suppress(OSError):
            part.unlink()
        raise Invalid(f"cannot write {path}: {error.strerror or error}") from error
