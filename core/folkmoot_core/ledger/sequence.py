"""The log's state between batches: tree, last link, and which (source, id) stands where. Pure: the store passes batches in.

`seal` makes the bytes of the next batch and changes nothing; `commit` moves the state on once the batch is durable. So a
batch that could not be written leaves no trace.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Items

from folkmoot_core.entries import GENESIS_PREV
from folkmoot_core.ledger.envelope import Prepared, take_apart
from folkmoot_core.ledger.index import Index
from folkmoot_core.ledger.tiles import Rows
from folkmoot_core.ledger.tree import leaf_hash


class Sequence:
    """One log's state. Not for concurrent writers."""

    def __init__(self) -> None:
        self.rows = Rows()
        self._index = Index()

    def __len__(self) -> int:
        return len(self.rows)

    def find(self, key: bytes, stored: Callable[[int], bytes]) -> tuple[int, Prepared] | None:
        """Position and content of the entry with this idempotency key; `stored` reads an entry's bytes."""
        for position in self._index.candidates(key):
            found = take_apart(stored(position))
            if found.key == key:
                return position, found
        return None

    def seal(self, batch: Items[Prepared], recorded: str) -> tuple[list[bytes], list[bytes]]:
        """The next entries and their leaf hashes. `prev` is the leaf hash before: link and tree share one hash."""
        size = len(self)
        prev = self.rows.leaf(size - 1).hex() if size else GENESIS_PREV
        entries: list[bytes] = []
        leaves: list[bytes] = []
        for position, prepared in enumerate(batch, size):
            entry = prepared.encode(position, prev, recorded)
            leaf = leaf_hash(entry)
            prev = leaf.hex()
            entries.append(entry)
            leaves.append(leaf)
        return entries, leaves

    def commit(self, keys: Items[bytes], leaves: Items[bytes]) -> None:
        """The batch is durable."""
        for position, key in enumerate(keys, len(self)):
            self._index.add(key, position)
        self.rows.extend(leaves)

    def accept(self, entries: Items[bytes], leaves: Items[bytes]) -> None:
        """A batch read back from storage. Raises `Invalid` when it does not hold ledger entries."""
        self.commit([take_apart(entry).key for entry in entries], leaves)
