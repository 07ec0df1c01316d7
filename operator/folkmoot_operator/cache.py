"""What the operator has seen of the cluster: one typed store per kind, indexed by namespace, owner and label.

Written by the watch handlers and by relists, read by reconcilers and by the endpoint. Objects in here are never
changed in place. It does no I/O and knows no kopf.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable
from typing import Any, Final

from folkmoot_core import names
from folkmoot_operator.kinds import Key, Kind, Obj, key_of, labels_of

INDEXED_LABELS: Final = (names.LABEL_OWNER_UID, names.LABEL_TENANT, names.LABEL_AGENT)
_Ref = tuple[Kind, Key]


class Cache:
    """The store. `filled` is set once every watched kind has been listed: no reconcile runs before."""

    def __init__(self) -> None:
        self._objects: dict[Kind, dict[Key, Obj]] = defaultdict(dict)
        self._by_namespace: dict[tuple[Kind, str], set[Key]] = defaultdict(set)
        self._by_label: dict[tuple[str, str], set[_Ref]] = defaultdict(set)
        self._relists: set[Relist] = set()
        self._written: dict[_Ref, str] = {}
        self.filled = asyncio.Event()

    def put(self, kind: Kind, obj: Obj) -> bool:
        """Store what the watch gave; True if it is new or has another resourceVersion. Echoes of states that are older than
        our own last write of the object are skipped: they would look like drift."""
        key = key_of(obj)
        for relist in self._relists:
            relist.touched(kind, key)
        written = self._written.get((kind, key))
        if written is not None:
            if _older(obj["metadata"].get("resourceVersion"), written):
                return False
            del self._written[kind, key]
        return self._store(kind, key, obj)

    def wrote(self, kind: Kind, obj: Obj) -> None:
        """Store the API server's answer to our own write, ahead of the watch."""
        key = key_of(obj)
        before = self.get(kind, key)
        self._store(kind, key, obj)
        version = str(obj["metadata"].get("resourceVersion"))
        if before is None or before["metadata"].get("resourceVersion") != version:
            self._written[kind, key] = version

    def drop(self, kind: Kind, key: Key) -> Obj | None:
        """Forget an object that is gone; returns what was known of it."""
        for relist in self._relists:
            relist.touched(kind, key)
        self._written.pop((kind, key), None)
        return self._remove(kind, key)

    def get(self, kind: Kind, key: Key) -> Obj | None:
        """The object as last seen."""
        return self._objects[kind].get(key)

    def objects(self, kind: Kind, namespace: str = "") -> list[Obj]:
        """All objects of a kind, or those of one namespace, ordered by key."""
        store = self._objects[kind]
        keys = self._by_namespace.get((kind, namespace), ()) if namespace else store
        return [store[key] for key in sorted(keys)]

    def labelled(self, label: str, value: str) -> list[tuple[Kind, Obj]]:
        """Objects of every kind that carry an indexed label with this value."""
        refs = self._by_label.get((label, value), ())
        return [(kind, self._objects[kind][key]) for kind, key in sorted(refs, key=lambda ref: (ref[0].plural, ref[1]))]

    def count(self, kind: Kind) -> int:
        """How many objects of a kind are known."""
        return len(self._objects[kind])

    def relist(self, kind: Kind) -> Relist:
        """Begin to take a list again: see `Relist`."""
        relist = Relist(self, kind)
        self._relists.add(relist)
        return relist

    def _store(self, kind: Kind, key: Key, obj: Obj) -> bool:
        before = self._objects[kind].get(key)
        if before is not None:
            self._unindex(kind, key, before)
        lean = _lean(obj)
        self._objects[kind][key] = lean
        self._by_namespace[kind, key.namespace].add(key)
        for pair in _indexed(lean):
            self._by_label[pair].add((kind, key))
        return before is None or before["metadata"].get("resourceVersion") != lean["metadata"].get("resourceVersion")

    def _remove(self, kind: Kind, key: Key) -> Obj | None:
        before = self._objects[kind].pop(key, None)
        if before is not None:
            self._unindex(kind, key, before)
        return before

    def _unindex(self, kind: Kind, key: Key, obj: Obj) -> None:
        _discard(self._by_namespace, (kind, key.namespace), key)
        for pair in _indexed(obj):
            _discard(self._by_label, pair, (kind, key))


class Relist:
    """One list of a kind, taken in pages while the watch goes on: what the watch said meanwhile is newer and wins."""

    def __init__(self, cache: Cache, kind: Kind) -> None:
        self._cache = cache
        self._kind = kind
        self._seen: set[Key] = set()
        self._touched: set[Key] = set()
        self.changed: set[Key] = set()
        """Keys that came, went or differ from what the cache held: what the watch must have missed."""

    def touched(self, kind: Kind, key: Key) -> None:
        """The watch spoke of this object while the list was taken."""
        if kind == self._kind:
            self._touched.add(key)

    def page(self, items: Iterable[Obj]) -> None:
        """Take one page."""
        for item in items:
            key = key_of(item)
            self._seen.add(key)
            if key not in self._touched:
                self._cache._written.pop((self._kind, key), None)
                if self._cache._store(self._kind, key, item):
                    self.changed.add(key)

    def finish(self) -> list[Obj]:
        """Drop what the list no longer holds; returns those objects. Without this call nothing is dropped."""
        self._cache._relists.discard(self)
        gone = [obj for obj in self._cache.objects(self._kind) if key_of(obj) not in self._seen | self._touched]
        for obj in gone:
            self._cache._remove(self._kind, key_of(obj))
            self.changed.add(key_of(obj))
        return gone

    def abandon(self) -> None:
        """The list failed half-way: what was read stays, nothing is dropped."""
        self._cache._relists.discard(self)


def _older(version: str | None, than: str) -> bool:
    """Only ever used about an object that we wrote ourselves a moment ago; a wrong guess is repaired by the next relist."""
    return version is not None and version.isdigit() and than.isdigit() and int(version) < int(than)


def _lean(obj: Obj) -> Obj:
    """A shallow copy without managedFields, which can be larger than all the rest together."""
    metadata = {k: v for k, v in obj["metadata"].items() if k != "managedFields"}
    return {**obj, "metadata": metadata}


def _indexed(obj: Obj) -> list[tuple[str, str]]:
    labels = labels_of(obj)
    return [(label, labels[label]) for label in INDEXED_LABELS if label in labels]


def _discard(index: dict[Any, set[Any]], pair: Any, item: Any) -> None:
    members = index.get(pair)
    if members is not None:
        members.discard(item)
        if not members:
            del index[pair]
