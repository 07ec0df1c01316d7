"""What the broker tells the operator: which providers can be called, and why not. Sent on change, until it was accepted.

The operator cannot see Secrets (wiring.md §4), so this is how `ProviderAvailable` comes about. It looks at the mounted files
and at what vendors answered; it calls no vendor to find out.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from folkmoot_core.document import ProviderReport, Report, TenantDocument
from folkmoot_core.errors import Unavailable
from folkmoot_core.resources.tenant import ProviderSpec
from folkmoot_runtime.broker.providers.registry import Registry
from folkmoot_runtime.peer import Peer

log = logging.getLogger(__name__)
LOOK_SECONDS = 5.0
FIRST_SECONDS = 0.2  # while there is no document
# Failures that say something of the provider as configured. A busy vendor or a wrong request say nothing of it.
TELLING = frozenset(
    {"ProviderUnauthorized", "ProviderForbidden", "ProviderPaymentRequired", "ProviderUnreachable", "ProviderNotFound"}
)


@dataclass(frozen=True)
class _Heard:
    fingerprint: str  # of the files at that time: a new key is given a new chance
    reason: str
    message: str


@dataclass
class Reporter:
    """`observe` is fed by the engine; `follow` runs beside it."""

    operator: Peer
    registry: Registry
    document: Callable[[], TenantDocument | None]
    number: Callable[[], Awaitable[int]]
    """The next sequence number, kept on the volume."""
    _heard: dict[str, _Heard] = field(default_factory=dict)
    _told: Report | None = None
    _trouble: str = ""

    def observe(self, name: str, reason: str, message: str) -> None:
        """A call to provider `name` ended: '' for success."""
        if not reason:
            self._heard.pop(name, None)
        elif reason in TELLING:
            spec = self._spec(name)
            if spec is not None:
                self._heard[name] = _Heard(self.registry.fingerprint(spec), reason, message)

    def now(self) -> tuple[str, tuple[ProviderReport, ...]] | None:
        """Digest of the document and a report per provider, or None before there is a document."""
        document = self.document()
        if document is None:
            return None
        return document.digest(), tuple(self._of(spec) for spec in document.providers)

    async def send(self) -> None:
        """Tell the operator when something differs from what it last accepted; raises `Unavailable`."""
        state = self.now()
        if state is None or (self._told is not None and state == (self._told.document_digest, self._told.providers)):
            return
        digest, providers = state
        report = Report(reporter="broker", sequence=await self.number(), document_digest=digest, providers=providers)
        response = await self.operator.request("POST", "/v1/reports", body=report.model_dump_json().encode())
        if response.status_code not in (200, 204):
            raise Unavailable(f"operator answered {response.status_code} to POST /v1/reports")
        self._told = report

    async def follow(self) -> None:
        """Look and tell for ever. The same trouble is logged once."""
        while True:
            try:
                await self.send()
                self._trouble = ""
            except Unavailable as error:
                if error.message != self._trouble:
                    log.warning("report not accepted", extra={"detail": error.message})
                self._trouble = error.message
            await asyncio.sleep(LOOK_SECONDS if self.document() is not None else FIRST_SECONDS)

    def _of(self, spec: ProviderSpec) -> ProviderReport:
        found = self.registry.unusable(spec)
        if found is not None:
            return ProviderReport(name=spec.name, available=False, reason=found.reason, message=found.message)
        heard = self._heard.get(spec.name)
        if heard is not None and heard.fingerprint == self.registry.fingerprint(spec):
            return ProviderReport(name=spec.name, available=False, reason=heard.reason, message=heard.message)
        return ProviderReport(name=spec.name, available=True, reason="Usable", message="key and address are in place")

    def _spec(self, name: str) -> ProviderSpec | None:
        document = self.document()
        return next((spec for spec in document.providers if spec.name == name), None) if document is not None else None
