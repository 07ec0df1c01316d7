"""An API server in memory, product code for tests: passes the same contract tests as `kube.HttpKube`.

It has what the operator leans on: server-side apply with ownership of fields, resourceVersion preconditions, generation against
status, finalizers, garbage collection by ownerReferences, namespaces, watch events to a callback, and faults on demand. It has
no schema, no admission and no defaults of its own (`defaulting` may be given).
"""

from __future__ import annotations

import copy
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from folkmoot_core import names
from folkmoot_core.errors import Conflict, FolkmootError, Invalid, Missing, Unauthorized
from folkmoot_operator import fake_ssa
from folkmoot_operator.fake_ssa import Path
from folkmoot_operator.kinds import CONFIG_MAP, EVENT, LEASE, NAMESPACE, OWN, SECRET, Key, Kind, Obj, key_of, labels_of
from folkmoot_operator.kube import merged

Watcher = Callable[[str, Kind, Obj], None]
PAGE = 500
_BUILT_IN = ("default", "kube-system")  # namespaces that every cluster has
_NO_STATUS = (CONFIG_MAP, SECRET, LEASE, EVENT)


@dataclass
class Fault:
    """One planned failure: the next `times` calls of `verb` on `kind` (None: any) raise `error`."""

    verb: str
    error: FolkmootError
    kind: Kind | None = None
    times: int = 1
    after_commit: bool = False  # the write happened, its answer was lost


@dataclass
class _Stored:
    obj: Obj
    owners: dict[str, set[Path]] = field(default_factory=dict)


@dataclass
class FakeKube:
    """The server. `now` gives RFC 3339 text for timestamps."""

    now: Callable[[], str] = lambda: "2026-01-01T00:00:00Z"
    defaulting: Callable[[Kind, Obj], Obj] = lambda _kind, obj: obj
    validating: Callable[[Kind, Obj], None] = lambda _kind, _obj: None  # raises `Invalid`, as a schema would
    namespaces: bool = True  # whether a namespaced object needs its Namespace to exist
    blobs: dict[str, bytes] = field(default_factory=dict)  # answers of raw()
    faults: list[Fault] = field(default_factory=list)
    calls: list[tuple[str, Kind, Key]] = field(default_factory=list)
    _store: dict[tuple[Kind, Key], _Stored] = field(default_factory=dict)
    _watchers: list[Watcher] = field(default_factory=list)
    _version: int = 0
    _muted: int = 0

    # -- for tests --------------------------------------------------------------------------------------------------
    def watch(self, watcher: Watcher) -> None:
        """Call `watcher(type, kind, object)` for every change from now on."""
        self._watchers.append(watcher)

    def fail(
        self, verb: str, error: FolkmootError, kind: Kind | None = None, *, times: int = 1, after_commit: bool = False
    ) -> None:
        """Plan a fault."""
        self.faults.append(Fault(verb, error, kind, times, after_commit))

    def lose_events(self, count: int) -> None:
        """The next `count` watch events never arrive."""
        self._muted = count

    @property
    def writes(self) -> list[tuple[str, Kind, Key]]:
        """Calls that could have changed something, Events aside."""
        return [call for call in self.calls if call[0] not in ("get", "list", "raw") and call[1] != EVENT]

    def peek(self, kind: Kind, name: str, namespace: str = "") -> Obj | None:
        """The stored object, without a call."""
        stored = self._store.get((kind, Key(namespace, name)))
        return copy.deepcopy(stored.obj) if stored else None

    def all(self, kind: Kind, namespace: str = "") -> list[Obj]:
        """All stored objects of a kind, without a call."""
        found = [(k[1], s.obj) for k, s in self._store.items() if k[0] == kind and namespace in ("", k[1].namespace)]
        return [copy.deepcopy(obj) for _, obj in sorted(found, key=lambda pair: pair[0])]

    # -- the protocol ---------------------------------------------------------------------------------------------
    async def pages(self, kind: Kind, *, namespace: str = "", labels: str = "") -> AsyncIterator[list[Obj]]:
        """See `kube.Kube`. Label selectors: comma-separated equalities, or a bare key that must exist."""
        self._enter("list", kind, Key(namespace, ""))
        found = [obj for obj in self.all(kind, namespace) if _selected(obj, labels)]
        for start in range(0, max(len(found), 1), PAGE):
            yield found[start : start + PAGE]

    async def get(self, kind: Kind, key: Key) -> Obj:
        """See `kube.Kube`."""
        self._enter("get", kind, key)
        return copy.deepcopy(self._find(kind, key).obj)

    async def create(self, kind: Kind, obj: Obj) -> Obj:
        """See `kube.Kube`."""
        key = key_of(obj)
        fault = self._enter("create", kind, key)
        if (kind, key) in self._store:
            raise Conflict(f"{kind.plural} {key} already exists", reason="AlreadyExists")
        self._check_namespace(kind, key)
        fresh = copy.deepcopy(obj)
        if kind in OWN:
            fresh.pop("status", None)
        stored = self._insert(kind, key, fresh)
        stored.owners["create"] = fake_ssa.owned_paths(obj)
        return self._leave(fault, stored)

    async def update(self, kind: Kind, obj: Obj) -> Obj:
        """See `kube.Kube`."""
        key = key_of(obj)
        fault = self._enter("update", kind, key)
        stored = self._find(kind, key)
        self._check_version(obj, stored)
        after = copy.deepcopy(obj)
        if kind in OWN:
            after["status"] = stored.obj.get("status", {})
        self._replace(kind, key, after, "update")
        return self._leave(fault, stored)

    async def apply(self, kind: Kind, obj: Obj, *, manager: str = names.FIELD_MANAGER, status: bool = False) -> Obj:
        """See `kube.Kube`."""
        key = key_of(obj)
        fault = self._enter("apply", kind, key)
        intent = copy.deepcopy(obj)
        found = self._store.get((kind, key))
        if found is None:
            if status or obj["metadata"].get("uid"):
                raise Missing(f"{kind.plural} {key} does not exist")
            self._check_namespace(kind, key)
            _only(intent, status=False, split=kind not in _NO_STATUS)
            found = self._insert(kind, key, intent)
            found.owners[manager] = fake_ssa.owned_paths(intent)
            return self._leave(fault, found)
        self._check_version(obj, found)
        _only(intent, status=status, split=kind not in _NO_STATUS)
        intent["metadata"] = {k: v for k, v in intent["metadata"].items() if k not in ("resourceVersion", "uid")}
        owner = f"{manager}/status" if status else manager
        others = set().union(*(paths for name, paths in found.owners.items() if name != owner))
        after = fake_ssa.apply(found.obj, intent, found.owners.get(owner, set()), others)
        wanted = fake_ssa.owned_paths(intent)
        self._replace(kind, key, after, owner)
        found.owners[owner] = wanted
        return self._leave(fault, found)

    async def patch(self, kind: Kind, key: Key, patch: Obj) -> Obj:
        """See `kube.Kube`."""
        fault = self._enter("patch", kind, key)
        stored = self._find(kind, key)
        self._check_version(patch, stored)
        self._replace(kind, key, merged(stored.obj, patch), "patch")
        return self._leave(fault, stored)

    async def delete(self, kind: Kind, key: Key, *, uid: str = "") -> bool:
        """See `kube.Kube`."""
        fault = self._enter("delete", kind, key)
        stored = self._store.get((kind, key))
        if stored is None or (uid and stored.obj["metadata"]["uid"] != uid):
            return False
        if stored.obj["metadata"].get("finalizers"):
            if not stored.obj["metadata"].get("deletionTimestamp"):
                after = copy.deepcopy(stored.obj)
                after["metadata"]["deletionTimestamp"] = self.now()
                self._replace(kind, key, after, "delete")
        else:
            self._collect(kind, key)
        self._leave(fault, stored)
        return True

    async def raw(self, path: str) -> bytes:
        """See `kube.Kube`."""
        self._enter("raw", NAMESPACE, Key("", path))
        if path not in self.blobs:
            raise Missing(f"GET {path}: 404")
        return self.blobs[path]

    # -- inside -----------------------------------------------------------------------------------------------------
    def _enter(self, verb: str, kind: Kind, key: Key) -> Fault | None:
        self.calls.append((verb, kind, key))
        for fault in self.faults:
            if fault.verb == verb and fault.kind in (None, kind) and fault.times > 0:
                fault.times -= 1
                if fault.after_commit:
                    return fault
                raise fault.error
        return None

    @staticmethod
    def _leave(fault: Fault | None, stored: _Stored) -> Obj:
        if fault is not None:
            raise fault.error
        return copy.deepcopy(stored.obj)

    def _find(self, kind: Kind, key: Key) -> _Stored:
        try:
            return self._store[kind, key]
        except KeyError:
            raise Missing(f"{kind.plural} {key} not found") from None

    @staticmethod
    def _check_version(obj: Obj, stored: _Stored) -> None:
        metadata, live = obj.get("metadata") or {}, stored.obj["metadata"]
        for name in ("resourceVersion", "uid"):
            if metadata.get(name) and metadata[name] != live[name]:
                raise Conflict(f"{name} {metadata[name]} is not the current {live[name]}")

    def _check_namespace(self, kind: Kind, key: Key) -> None:
        if not kind.namespaced:
            return
        if not key.namespace:
            raise Invalid(f"{kind.plural} {key.name}: a namespace is needed")
        if self.namespaces and key.namespace not in _BUILT_IN:
            namespace = self._store.get((NAMESPACE, Key("", key.namespace)))
            if namespace is None:
                raise Missing(f"namespace {key.namespace} not found")
            if namespace.obj["metadata"].get("deletionTimestamp"):
                raise Unauthorized(f"namespace {key.namespace} is being terminated", reason="Forbidden")

    def _insert(self, kind: Kind, key: Key, obj: Obj) -> _Stored:
        self._version += 1
        metadata = obj.setdefault("metadata", {})
        metadata |= {"uid": f"uid-{self._version}", "resourceVersion": str(self._version), "creationTimestamp": self.now()}
        metadata["generation"] = 1
        obj.setdefault("apiVersion", kind.api_version)
        obj.setdefault("kind", kind.kind)
        self.validating(kind, obj)
        stored = _Stored(self.defaulting(kind, obj))
        self._store[kind, key] = stored
        self._tell("ADDED", kind, stored.obj)
        return stored

    def _replace(self, kind: Kind, key: Key, after: Obj, owner: str) -> None:
        stored = self._store[kind, key]
        after = self.defaulting(kind, after)
        for name in ("uid", "resourceVersion", "creationTimestamp", "generation"):
            after["metadata"][name] = stored.obj["metadata"][name]
        if after == stored.obj:
            return
        self.validating(kind, after)
        changed = fake_ssa.changed_paths(stored.obj, after)
        for name, paths in stored.owners.items():
            if name != owner:
                paths -= changed
        stored.owners.setdefault(owner, set()).update(changed)
        self._version += 1
        after["metadata"]["resourceVersion"] = str(self._version)
        if _content(after) != _content(stored.obj):
            after["metadata"]["generation"] += 1
        stored.obj = after
        if after["metadata"].get("deletionTimestamp") and not after["metadata"].get("finalizers"):
            self._collect(kind, key)
        else:
            self._tell("MODIFIED", kind, after)

    def _collect(self, kind: Kind, key: Key) -> None:
        """Remove for good, then what lived in it (a namespace) and what it owned."""
        gone = self._store.pop((kind, key))
        self._tell("DELETED", kind, gone.obj)
        inside = [ref for ref in self._store if kind == NAMESPACE and ref[1].namespace == key.name]
        uid = gone.obj["metadata"]["uid"]
        owned = [ref for ref, stored in self._store.items() if _owner_uids(stored.obj) == {uid}]
        for ref in {*inside, *owned}:
            if ref in self._store:
                self._collect(*ref)

    def _tell(self, event: str, kind: Kind, obj: Obj) -> None:
        if self._muted > 0:
            self._muted -= 1
            return
        for watcher in self._watchers:
            watcher(event, kind, copy.deepcopy(obj))


def _only(intent: Obj, *, status: bool, split: bool) -> None:
    """An apply to the object ignores status, one to /status ignores everything else."""
    if status:
        for name in [n for n in intent if n not in ("apiVersion", "kind", "metadata", "status")]:
            del intent[name]
        for name in [n for n in intent["metadata"] if n not in ("name", "namespace", "uid", "resourceVersion")]:
            del intent["metadata"][name]
    elif split:
        intent.pop("status", None)


def _content(obj: Obj) -> str:
    return json.dumps({k: v for k, v in obj.items() if k not in ("metadata", "status")}, sort_keys=True)


def _owner_uids(obj: Obj) -> set[str]:
    return {reference["uid"] for reference in obj["metadata"].get("ownerReferences") or ()}


def _selected(obj: Obj, selector: str) -> bool:
    labels = labels_of(obj)
    for term in filter(None, selector.split(",")):
        name, equals, value = term.partition("=")
        if name not in labels or (equals and labels[name] != value):
            return False
    return True
