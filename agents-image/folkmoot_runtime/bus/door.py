"""The router's door: `POST /v1/bus-credentials` turns a ServiceAccount token into a short-lived ACL password.

Obligations: 1. token of audience folkmoot-bus, of this namespace; 2. the account is the core's or `agent-<name>` of an agent in
the tenant document; 3. the participant comes from the token alone, never from the body; 4. the password is answered once and
kept nowhere but as a hash.
"""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from folkmoot_core import names
from folkmoot_core.credentials import CredentialRequest
from folkmoot_core.errors import Forbidden, Unavailable
from folkmoot_core.signing import public_key
from folkmoot_core.tokens import Caller
from folkmoot_runtime import web
from folkmoot_runtime.bus.accounts import Accounts
from folkmoot_runtime.bus.connection import RedisError
from folkmoot_runtime.bus.directory import Directory
from folkmoot_runtime.trust import Trust

MAX_REQUEST = 4096


class Door:
    """Answers credential requests; `ready` once Valkey was reached."""

    def __init__(self, trust: Trust, accounts: Accounts, directory: Directory) -> None:
        self.ready = False
        self._trust = trust
        self._accounts = accounts
        self._directory = directory

    def app(self) -> Starlette:
        """The Starlette app."""
        return web.app([Route("/v1/bus-credentials", self._credentials, methods=["POST"])], ready=lambda: self.ready)

    async def _credentials(self, request: Request) -> Response:
        caller = self._trust.caller(request.headers.get("Authorization"), names.AUDIENCE_BUS)  # 1
        participant = await self._participant(caller)  # 2, 3
        body = await web.parse(request, CredentialRequest, MAX_REQUEST)
        key = public_key(body.public_key)
        try:
            return web.answer(await self._accounts.grant(participant, caller.pod, key))  # 4
        except (RedisError, OSError) as error:
            raise Unavailable("the bus does not answer the router; try again", retry_after=1.0) from error

    async def _participant(self, caller: Caller) -> str:
        if caller.service_account == names.SA_CORE:
            return names.CORE
        agent = names.agent_of_service_account(caller.service_account)
        if agent is None:
            raise Forbidden(f"ServiceAccount {caller.service_account} is no participant; expected core or agent-<name>")
        if agent not in self._directory.participants():
            await self._directory.refresh()
        if not self._directory.known:
            raise Unavailable("the router has not seen the tenant document yet", retry_after=2.0)
        if agent not in self._directory.participants() or agent == names.CORE:
            raise Forbidden(f"agent {agent} is not in the tenant document; apply it, or wait until it is accepted")
        return agent
