"""Who is at the service door: a token of audience folkmoot-conductor, and what its ServiceAccount may do here."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from starlette.requests import Request

from folkmoot_core import names
from folkmoot_core.errors import Forbidden
from folkmoot_runtime.trust import Trust

READERS: Final = frozenset({names.SA_OWNER, names.SA_VIEWER})
WRITERS: Final = frozenset({names.SA_OWNER})
AUDITORS: Final = frozenset({names.SA_OWNER, names.SA_AUDITOR})


class Callers:
    """Verifies callers; holds nothing."""

    def __init__(self, trust: Trust) -> None:
        self._trust = trust

    def account(self, request: Request, allowed: Iterable[str], what: str, *, agents: bool = False) -> str:
        """ServiceAccount of the caller, if it is one of `allowed` or, with `agents`, any agent's; raises `Unauthorized`."""
        account = self._trust.caller(request.headers.get("authorization"), names.AUDIENCE_CONDUCTOR).service_account
        if account in allowed or (agents and names.agent_of_service_account(account)):
            return account
        raise Forbidden(f"ServiceAccount {account} may not {what}")

    def agent(self, request: Request, what: str) -> str:
        """Name of the calling agent."""
        agent = names.agent_of_service_account(self.account(request, (), what, agents=True))
        assert agent  # noqa: S101 - `account` let only agents pass
        return agent
