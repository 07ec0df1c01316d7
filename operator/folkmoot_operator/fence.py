"""Remembers size and root of each tenant's log in one ConfigMap of the operator's own namespace, outside every tenant's reach.

The report path asks (`check`), whichever replica it is; what a report means is `folkmoot_core.ledger.marks`. Obligations, numbered
at the steps: 1. a mark is written under the resourceVersion it was computed from, and computed anew on a conflict; 2. a growing log
costs one write per `ANCHOR_SECONDS` at most, a new log and a fork are written at once; 3. a fork that is remembered is read again
before it is told, so that a person who removed the object is heard. The object carries no managed-by label: it is not watched.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from folkmoot_core import names
from folkmoot_core.document import LogReport
from folkmoot_core.errors import Conflict, Invalid, LimitReached, Missing, Unavailable
from folkmoot_core.ledger import marks
from folkmoot_core.ledger.marks import Marks
from folkmoot_operator.kinds import CONFIG_MAP, Key, Obj, key_of, uid_of
from folkmoot_operator.kube import Kube
from folkmoot_operator.witness_client import Registration, SeenLog
from folkmoot_operator.witness_keeper import WitnessKeeper

log = logging.getLogger(__name__)
ANCHOR_SECONDS: Final = 60.0
ATTEMPTS: Final = 8
DATA: Final = "logs"


class _Held(NamedTuple):
    marks: Marks
    version: str  # resourceVersion; empty: there is no object
    written: float  # epoch seconds, by this replica; 0: not by it


@dataclass
class Fence:
    """`report.Logs`. `witness` is told of each log, where the installation has one."""

    kube: Kube
    namespace: str
    witness: WitnessKeeper | None = None
    epoch: Callable[[], float] = time.time
    _held: dict[str, _Held] = field(default_factory=dict)

    async def seen(self, tenant: Obj, report: LogReport) -> str:
        """See `report.Logs`."""
        if self.witness is not None:
            self.witness.want(uid_of(tenant), Registration(origin=report.origin, vkeys=report.vkeys, rotation=report.rotation))
        return await self.check(tenant, report)

    async def check(self, tenant: Obj, report: LogReport) -> str:
        """Why this log has forked, or ''. Raises `Unavailable` while the memory cannot be read or written."""
        try:
            after = await self._change(tenant, report.origin, lambda known: marks.weigh(known, report, int(self.epoch())))
        except LimitReached as error:  # its reports must not stop for it: the witness refuses such a log too
            log.error("a log is not fenced", extra={"tenant": key_of(tenant).name, "error": error.message})
            return ""
        found = after.of(report.origin)
        return found.fork if found is not None else ""

    async def accuse(self, tenant: Obj, seen: SeenLog) -> str:
        """The witness holds proof of a fork: remember it, so that the core's next report is answered with it. Returns why."""
        why = f"the witness holds two checkpoints of it over {seen.size} entries"
        try:
            await self._change(tenant, seen.origin, lambda known: marks.accuse(known, seen.origin, why))
        except Invalid:
            log.warning("a forked log was never reported", extra={"tenant": key_of(tenant).name, "origin": seen.origin})
        return why

    def forget(self, uid: str) -> None:
        """A Tenant is gone."""
        self._held.pop(uid, None)
        if self.witness is not None:
            self.witness.forget(uid)

    async def _change(self, tenant: Obj, origin: str, step: Callable[[Marks], Marks]) -> Marks:
        uid = uid_of(tenant)
        for _ in range(ATTEMPTS):
            held = self._held.get(uid)
            before = held.marks.of(origin) if held is not None else None
            if held is None or (before is not None and before.fork):  # 3
                held = self._held[uid] = await self._read(uid)
            after = step(held.marks)
            if after == held.marks or not self._due(held, after, origin):
                return after
            try:
                self._held[uid] = await self._write(tenant, held, after)
            except (Conflict, Missing):  # 1
                self._held.pop(uid, None)
                continue
            self._say(tenant, held.marks, after, origin)
            return after
        raise Unavailable(
            f"ConfigMap {self._key(uid)}: it changes faster than a log's mark can be written; send the report again"
        )

    def _due(self, held: _Held, after: Marks, origin: str) -> bool:
        known, new = held.marks.of(origin), after.of(origin)
        if known is None or new is None or new.fork != known.fork:  # 2
            return True
        return self.epoch() - held.written >= ANCHOR_SECONDS

    async def _read(self, uid: str) -> _Held:
        try:
            found = await self.kube.get(CONFIG_MAP, self._key(uid))
        except Missing:
            return _Held(Marks(), "", 0.0)
        try:
            known = marks.read((found.get("data") or {}).get(DATA, ""))
        except Invalid as error:  # who may write here may also remove it; going on with nothing is no worse, and is said
            log.error("the memory of a tenant's logs was changed by somebody; it begins anew", extra={"error": error.message})
            known = Marks()
        return _Held(known, found["metadata"]["resourceVersion"], 0.0)

    async def _write(self, tenant: Obj, held: _Held, after: Marks) -> _Held:
        key, data = self._key(uid_of(tenant)), {DATA: after.text()}
        if held.version:
            body: Obj = {"metadata": {"resourceVersion": held.version}, "data": data}
            answer = await self.kube.patch(CONFIG_MAP, key, body)
        else:
            labels = {names.LABEL_PART_OF: names.MANAGER, names.LABEL_COMPONENT: "log", names.LABEL_TENANT: key_of(tenant).name}
            metadata = {"name": key.name, "namespace": key.namespace, "labels": labels}
            answer = await self.kube.create(
                CONFIG_MAP, {"apiVersion": CONFIG_MAP.api_version, "kind": CONFIG_MAP.kind, "metadata": metadata, "data": data}
            )
        return _Held(after, answer["metadata"]["resourceVersion"], self.epoch())

    @staticmethod
    def _say(tenant: Obj, before: Marks, after: Marks, origin: str) -> None:
        known, new = before.of(origin), after.of(origin)
        extra = {"tenant": key_of(tenant).name, "origin": origin}
        if new is not None and new.fork and not (known and known.fork):
            log.critical("a log has forked", extra={**extra, "detail": new.fork})
        elif known is None and before.logs:
            log.warning("a tenant has begun another log", extra={**extra, "before": before.logs[-1].origin})

    def _key(self, uid: str) -> Key:
        return Key(self.namespace, names.log_memory(uid))
