"""The log's state between batches: tree, last link, and which (source, id) stands where. Pure: the store passes batches in.

`seal` makes the bytes of the next batch, and the one after it may be made at once; `commit` moves the state on once a batch is
durable. A batch that could not be written leaves no trace: `drop` forgets whatever was sealed since.
"""

from __future__ import annotations

from binascii import hexlify
from collections.abc import Callable
from collections.abc import Sequence as Items

from folkmoot_core.entries import GENESIS_PREV
from folkmoot_core.ledger.envelope import Prepared, key_of, take_apart
from folkmoot_core.ledger.index import Index, Store
from folkmoot_core.ledger.tiles import Rows
from folkmoot_core.ledger.tree import begin_leaf


class Sequence:
    """One log's state. Not for concurrent writers."""

    def __init__(self, rows: Rows | None = None, store: Store | None = None) -> None:
        self.rows = Rows() if rows is None else rows
        self._index = Index(store)
        self.sealed = 0
        """Entries that are durable or sealed: where the next batch begins."""
        self._last = b""  # leaf hash before it
        self.drop()

    def __len__(self) -> int:
        return len(self.rows)

    def find(self, key: bytes, stored: Callable[[int], bytes]) -> tuple[int, Prepared] | None:
        """Position and content of the entry with this idempotency key; `stored` reads an entry's bytes."""
        for position in self._index.candidates(key):
            found = take_apart(stored(position))
            if found.key == key:
                return position, found
        return None

    def suspects(self, keys: Items[bytes]) -> list[int]:
        """Which of these keys may be known, by their place; the others are certainly new."""
        return self._index.suspects(keys)

    def seal(self, batch: Items[Prepared], recorded: str) -> tuple[list[bytes], list[bytes]]:
        """The next entries and their leaf hashes. `prev` is the leaf hash before: link and tree share one hash."""
        prev = hexlify(self._last) if self.sealed else GENESIS_PREV.encode()
        stamp, join = recorded.encode(), b"".join
        entries: list[bytes] = []
        leaves: list[bytes] = []
        for position, prepared in enumerate(batch, self.sealed):
            entry = join((prepared.head, stamp, prepared.middle, prev, b'","seq":%d,"v":1}' % position))
            hashed = begin_leaf()  # RFC 6962 §2.1, written out: this loop is the log's serial part
            hashed.update(entry)
            leaf = hashed.digest()
            prev = hexlify(leaf)
            entries.append(entry)
            leaves.append(leaf)
        if leaves:
            self.sealed, self._last = self.sealed + len(leaves), leaves[-1]
        return entries, leaves

    def drop(self) -> None:
        """What was sealed and not committed will not be written: the next batch follows what is durable."""
        self.sealed = len(self)
        self._last = self.rows.leaf(self.sealed - 1) if self.sealed else b""

    def commit(self, keys: Items[bytes], leaves: Items[bytes]) -> None:
        """The batch is durable."""
        self._index.extend(keys)
        self.rows.extend(leaves)

    def accept(self, entries: Items[bytes], leaves: Items[bytes]) -> None:
        """A batch read back from storage. Raises `Invalid` when it does not hold ledger entries."""
        self.commit([key_of(entry) for entry in entries], leaves)
        self.drop()
