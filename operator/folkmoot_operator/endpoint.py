"""The operator's door for tenants' cores and brokers: certificate requests and reports. docs/architecture.md, first table.

Every replica serves it, leader or not. Obligations at each request, numbered here and at the steps: 1. the token is valid for
audience folkmoot-operator; 2. its namespace is one that we manage, of a Tenant that exists; 3. its ServiceAccount is `core` or
`broker`; 4. it gets the names of that account's Service, or speaks for that reporter, and nothing else; 5. bodies are bounded;
6. one namespace has a few requests at work at most, and each of its accounts so many in ten seconds, so that one tenant's flood is
neither the others' wait nor writes to the API server without end; 7. in the operator's own namespace the accounts of the
installation's own services may ask for certificates, and report nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, Protocol, TypeVar

from aiohttp import web
from pydantic import BaseModel, ValidationError

from folkmoot_core import names
from folkmoot_core.document import CertificateRequest, Report
from folkmoot_core.errors import Conflict, FolkmootError, Invalid, LimitReached, Missing, Unauthorized, Unavailable
from folkmoot_core.tokens import Caller
from folkmoot_operator.ca import Signer
from folkmoot_operator.cache import Cache
from folkmoot_operator.discovery import Discovery
from folkmoot_operator.kinds import NAMESPACE, TENANT, Key, Obj, labels_of
from folkmoot_operator.metrics import Metrics
from folkmoot_operator.report import ReportWriter

log = logging.getLogger(__name__)
MAX_BODY: Final = 1024 * 1024
MAX_REPORTS: Final = 32  # written at the same time; more wait
MAX_PER_NAMESPACE: Final = 8  # requests at work at the same time; the four who ask have one or two each
WINDOW_SECONDS: Final = 10.0
MAX_PER_WINDOW: Final = 200  # requests of one account; a core that is busy sends five reports a second
OWN_SERVICES: Final = (names.SA_WITNESS, names.SA_TIMESTAMPS)
Model = TypeVar("Model", bound=BaseModel)
_STATUS: Final[tuple[tuple[type[FolkmootError], int], ...]] = (
    (Invalid, 400), (Unauthorized, 401), (Missing, 404), (Conflict, 409), (LimitReached, 413), (Unavailable, 503),
)  # fmt: skip


class Forbidden(Unauthorized):
    """The caller is known and may not do this."""

    reason = "Forbidden"


class Writer(Protocol):
    """See `report.ReportWriter`."""

    async def take(self, tenant: Obj, namespace: str, report: Report) -> None: ...


@dataclass
class Endpoint:
    """The two routes."""

    signer: Signer
    discovery: Discovery
    cache: Cache
    writer: Writer | ReportWriter
    metrics: Metrics
    system: str
    """The operator's own namespace."""
    clock: Callable[[], float] = time.time
    steady: Callable[[], float] = time.monotonic
    _window: int = 0
    _in_window: Counter[str] = field(default_factory=Counter)
    _slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MAX_REPORTS))
    _at_work: Counter[str] = field(default_factory=Counter)

    def app(self) -> web.Application:
        """The application, with errors as problem documents."""
        app = web.Application(client_max_size=MAX_BODY, middlewares=[_problems])
        app.router.add_post("/v1/certificates", self._certificates)
        app.router.add_post("/v1/reports", self._reports)
        app.router.add_get("/healthz", _ok)
        app.router.add_get("/readyz", self._ready)
        return app

    async def _ready(self, _: web.Request) -> web.Response:
        return web.Response(text="ok") if self.cache.filled.is_set() else web.Response(text="starting", status=503)

    async def _certificates(self, request: web.Request) -> web.Response:
        try:
            caller = await self._caller(request)
            if caller.namespace != self.system or caller.service_account not in OWN_SERVICES:  # 7
                self._tenant(caller)
            with self._one_of_few(caller):
                body = await _parse(request, CertificateRequest)
                answer = self.signer.answer(body.csr, names.service_names(caller.service_account, caller.namespace))  # 4
        except FolkmootError as error:
            self.metrics.certificate(_code(error))
            raise
        self.metrics.certificate(200)
        log.info(
            "signed a certificate", extra={"namespace": caller.namespace, "account": caller.service_account, "pod": caller.pod}
        )
        return web.json_response(text=answer.model_dump_json())

    async def _reports(self, request: web.Request) -> web.Response:
        caller = await self._caller(request)
        tenant = self._tenant(caller)
        with self._one_of_few(caller):
            await self._report(caller, tenant, await _parse(request, Report))
        return web.Response(status=204)

    async def _report(self, caller: Caller, tenant: Obj, report: Report) -> None:
        try:
            if report.reporter != caller.service_account:  # 4
                raise Forbidden(f"ServiceAccount {caller.service_account} may not report as {report.reporter}")
            async with self._slots:
                await self.writer.take(tenant, caller.namespace, report)
        except FolkmootError as error:
            self.metrics.report(report.reporter, _code(error))
            raise
        self.metrics.report(report.reporter, 204)

    @contextlib.contextmanager
    def _one_of_few(self, caller: Caller) -> Iterator[None]:
        namespace, account = caller.namespace, f"{caller.namespace}/{caller.service_account}"
        if self._at_work[namespace] >= MAX_PER_NAMESPACE:  # 6
            raise Unavailable(
                f"namespace {namespace} has {MAX_PER_NAMESPACE} requests here already; send it again", retry_after=1
            )
        if (window := int(self.steady() / WINDOW_SECONDS)) != self._window:
            self._window = window
            self._in_window.clear()
        if self._in_window[account] >= MAX_PER_WINDOW:  # 6
            raise Unavailable(
                f"{account} has sent {MAX_PER_WINDOW} requests within {WINDOW_SECONDS:g} s; send it again later",
                retry_after=WINDOW_SECONDS,
            )
        self._in_window[account] += 1
        self._at_work[namespace] += 1
        try:
            yield
        finally:
            self._at_work[namespace] -= 1
            if not self._at_work[namespace]:
                del self._at_work[namespace]

    async def _caller(self, request: web.Request) -> Caller:
        header = request.headers.get("Authorization")
        try:
            caller = self.discovery.caller(header, names.AUDIENCE_OPERATOR, self.clock())  # 1
        except Unauthorized as error:
            if error.reason != "UnknownKey" or not await self.discovery.try_refresh():
                raise
            caller = self.discovery.caller(header, names.AUDIENCE_OPERATOR, self.clock())  # the cluster rotated its keys
        if not self.cache.filled.is_set():
            raise Unavailable("the operator is starting", retry_after=2)
        return caller

    def _tenant(self, caller: Caller) -> Obj:
        tenant = self.tenant_of(caller.namespace)  # 2
        if tenant is None:
            raise Forbidden(f"namespace {caller.namespace} belongs to no Tenant")
        if caller.service_account not in (names.SA_CORE, names.SA_BROKER):  # 3
            raise Forbidden(f"ServiceAccount {caller.service_account} has nothing to ask here")
        return tenant

    def tenant_of(self, namespace: str) -> Obj | None:
        """The Tenant of a namespace that we manage: label, name and the Tenant itself must agree."""
        found = self.cache.get(NAMESPACE, Key("", namespace))
        if found is None or labels_of(found).get(names.LABEL_MANAGED_BY) != names.MANAGER:
            return None
        tenant = labels_of(found).get(names.LABEL_TENANT, "")
        if not tenant or names.tenant_namespace(tenant) != namespace:
            return None
        return self.cache.get(TENANT, Key("", tenant))


async def _ok(_: web.Request) -> web.Response:
    return web.Response(text="ok")


async def _parse(request: web.Request, model: type[Model]) -> Model:
    try:
        return model.model_validate_json(await request.read())  # 5: aiohttp stops at client_max_size
    except web.HTTPRequestEntityTooLarge:
        raise LimitReached(f"request body is larger than {MAX_BODY} bytes", reason="BodyTooLarge") from None
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise Invalid(f"{model.__name__}: field {where or '(body)'}: {first['msg']}") from None


def _code(error: FolkmootError) -> int:
    if isinstance(error, Forbidden):
        return 403
    return next((code for kind, code in _STATUS if isinstance(error, kind)), 500)


@web.middleware
async def _problems(request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> web.StreamResponse:
    """RFC 9457: `type` is the reason, `detail` the sentence."""
    try:
        return await handler(request)
    except FolkmootError as error:
        status = _code(error)
        headers = {}
        if isinstance(error, Unavailable):
            headers["Retry-After"] = str(max(1, round(error.retry_after or 1)))
        if status in (401, 403):
            log.warning("refused", extra={"path": request.path, "reason": error.reason, "detail": error.message})
        body = {"type": error.reason, "title": type(error).__name__, "status": status, "detail": error.message}
        return web.json_response(body, status=status, headers=headers, content_type="application/problem+json")
