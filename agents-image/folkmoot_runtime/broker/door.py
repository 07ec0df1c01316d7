"""The broker's door: `POST /v1/calls`, `POST /v1/erasures` for the core, and the log's ways out (`broker.forward`). It says who calls,
and turns what the engine raises into an answer.

400 not a call · 401 no valid token · 403 policy · 409 in doubt for good · 502 the vendor failed, after all attempts ·
503 nothing left, ask again. Every body but the first answer's is a problem document whose `type` is the reason.
"""

from __future__ import annotations

import logging

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from folkmoot_core import names
from folkmoot_core.calls import MAX_REQUEST, CallEnvelope
from folkmoot_core.errors import Forbidden
from folkmoot_core.privacy import SessionsErasure
from folkmoot_runtime import web
from folkmoot_runtime.broker.engine import Engine, ProviderFailed
from folkmoot_runtime.broker.forward import Forwarder
from folkmoot_runtime.trust import Trust

log = logging.getLogger(__name__)
MAX_ERASURE = 128 * 1024  # bytes of a request


def app(engine: Engine, trust: Trust, forwarder: Forwarder) -> Starlette:
    """The door of one tenant's broker."""

    async def calls(request: Request) -> Response:
        caller = trust.caller(request.headers.get("Authorization"), names.AUDIENCE_BROKER)
        agent = names.agent_of_service_account(caller.service_account)
        if agent is None:
            raise Forbidden(f"ServiceAccount {caller.service_account} is no agent; only agents may call models")
        envelope = await web.parse(request, CallEnvelope, MAX_REQUEST)
        try:
            answer = await engine.ask(agent, envelope)
        except ProviderFailed as error:
            body = {"type": error.reason, "title": "ProviderFailed", "status": 502, "detail": error.message}
            return JSONResponse(body, status_code=502, media_type="application/problem+json")
        usage = answer.result.usage
        log.info("model call", extra={
            "agent": agent, "session": envelope.session, "call": answer.call_key[:12], "provider": answer.provider,
            "stored": answer.stored, "input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens,
        })  # fmt: skip
        return web.answer(answer)

    async def erase(request: Request) -> Response:
        caller = trust.caller(request.headers.get("Authorization"), names.AUDIENCE_BROKER)
        if caller.service_account != names.SA_CORE:
            raise Forbidden(f"ServiceAccount {caller.service_account} may not erase; only {names.SA_CORE} may")
        asked = await web.parse(request, SessionsErasure, MAX_ERASURE)
        gone = await engine.erase(asked.sessions)
        log.info("calls erased", extra={"sessions": len(asked.sessions), "calls": gone})
        return JSONResponse({"calls": gone})

    # Ready as soon as it serves: readiness never depends on another pod (wiring.md §3).
    own = [Route("/v1/calls", calls, methods=["POST"]), Route("/v1/erasures", erase, methods=["POST"])]
    return web.app([*own, *forwarder.routes()], ready=lambda: True)
