"""The participant's side of the router's door: a token and a public key in, a short-lived ACL password out.

Used by `ValkeyBus` alone. The password is kept in memory; asking again is always allowed and leaves older ones valid until
they expire.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import httpx2
from pydantic import ValidationError

from folkmoot_core.credentials import CredentialAnswer, CredentialRequest
from folkmoot_core.errors import Invalid, Unauthorized, Unavailable
from folkmoot_core.signing import SigningKey
from folkmoot_runtime.trust import Trust


class Credentials(Protocol):
    """Where a bus client gets its password from."""

    async def fetch(self, key: SigningKey) -> CredentialAnswer:
        """Register the public key and get a password. Raises `Unavailable` or `Unauthorized`."""


class RouterDoor:
    """`POST /v1/bus-credentials` with this pod's token of audience folkmoot-bus. One short connection per request."""

    def __init__(self, url: str, token_file: Path, trust: Trust, timeout: float) -> None:
        self._url = f"{url}/v1/bus-credentials"
        self._token_file = token_file
        self._trust = trust
        self._timeout = timeout

    async def fetch(self, key: SigningKey) -> CredentialAnswer:
        """See `Credentials.fetch`."""
        body = CredentialRequest(public_key=key.public_text())
        try:
            token = self._token_file.read_text().strip()
            headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
            async with httpx2.AsyncClient(verify=self._trust.client_context(), timeout=self._timeout, trust_env=False) as client:
                response = await client.post(self._url, content=body.model_dump_json(), headers=headers)
        except (httpx2.HTTPError, OSError) as error:
            raise Unavailable(f"router {self._url} did not answer: {type(error).__name__}") from error
        return _answer(response.status_code, response.content)


def _answer(status: int, content: bytes) -> CredentialAnswer:
    if status in (httpx2.codes.UNAUTHORIZED, httpx2.codes.FORBIDDEN):
        raise Unauthorized(f"the router refuses this pod's token ({status}); is its agent in the tenant document?")
    if status == httpx2.codes.BAD_REQUEST:
        raise Invalid("the router refuses the public key")
    if status != httpx2.codes.OK:
        raise Unavailable(f"the router answered {status}")
    try:
        return CredentialAnswer.model_validate_json(content)
    except ValidationError:
        raise Unavailable("the router answered with something else than a credential") from None
