"""A SQLite file written anew, so that no page keeps a copy of what was deleted. Used where content is erased (conductor, broker)."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from folkmoot_core.errors import Unavailable
from folkmoot_runtime.durable import sync_path


def rewrite(connection: sqlite3.Connection, path: Path) -> None:
    """Close the connection with the file written anew: b-trees leave copies behind when they move rows, and the write-ahead log has
    every page's past. The old file goes with its log; the caller opens the new one. Raises `Unavailable` when there is no room for
    it, or another process has it open; nothing has changed then, and the connection is still open."""
    fresh = fresh_of(path)
    fresh.unlink(missing_ok=True)
    try:
        # INTO a file of our own: a plain VACUUM needs a temporary directory, and writes everything into the log once more.
        connection.execute("VACUUM INTO ?", (str(fresh),))
        sync_path(fresh)
    except (sqlite3.OperationalError, OSError) as error:
        fresh.unlink(missing_ok=True)
        raise Unavailable(f"{path}: no room to write it anew ({error}); enlarge the volume", retry_after=60) from error
    (busy, *_) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    if busy:  # somebody else reads the file; its log must not be found beside the new one
        fresh.unlink()
        raise Unavailable(f"{path}: another process has it open; close that one", retry_after=60)
    connection.close()
    for suffix in ("-wal", "-shm"):  # gone with the last connection, as a rule
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    fresh.replace(path)
    sync_path(path.parent)


def fresh_of(path: Path) -> Path:
    """Where the new file is written; left behind by a crash, it is removed at the next opening."""
    return path.with_name(f"{path.name}.fresh")
