"""The operator's side of the witness's operator door (docs/architecture.md): its keys, which logs it knows, what it saw of them.

mTLS with the operator's client certificate, as towards conductors; every call and every answer is bounded. Errors are
`folkmoot_core.errors`. `fake_witness.FakeWitness` is the in-memory twin.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

import aiohttp
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from folkmoot_core.errors import Conflict, FolkmootError, Invalid, LimitReached, Unauthorized, Unavailable
from folkmoot_core.ledger.note import COSIGNATURE, parse_vkey

TIMEOUT: Final = aiohttp.ClientTimeout(total=10, connect=5)
MAX_ANSWER: Final = 16 * 1024 * 1024  # sixteen logs with a checkpoint and a fork each; a note has a million bytes at most
Model = TypeVar("Model", bound=BaseModel)


class Registration(BaseModel):
    """A log that a tenant's core reported: its keys in the order of its signatures, and the note of their last exchange."""

    model_config = ConfigDict(frozen=True)

    origin: str
    vkeys: tuple[str, ...]
    rotation: str = ""


class SeenLog(BaseModel):
    """What the witness knows of a log. `fork`: a checkpoint that the log signed and that contradicts the one cosigned."""

    model_config = ConfigDict(frozen=True)

    origin: str
    size: int = 0
    root: str = ""
    fork: str = ""


class _Vkeys(BaseModel):
    vkeys: tuple[str, ...] = Field(max_length=8)


class _Logs(BaseModel):
    logs: tuple[SeenLog, ...] = Field(max_length=64)


class Witness(Protocol):
    """What the operator asks of the installation's witness."""

    async def key(self) -> str:
        """The vkey by which its cosignatures are checked (type 0x04)."""
        ...

    async def register(self, tenant: str, log: Registration) -> None:
        """Make a log of the tenant with this uid known; idempotent. `Conflict`: it is known with other keys."""
        ...

    async def logs(self, tenant: str) -> tuple[SeenLog, ...]:
        """The logs that the tenant with this uid has brought."""
        ...


@dataclass
class HttpWitness:
    """The real one. `url` is its operator door."""

    session: aiohttp.ClientSession
    url: str

    async def key(self) -> str:
        """See `Witness`."""
        vkeys = _parsed(await self._call("GET", "/operator/v1/vkeys"), _Vkeys).vkeys
        found = next((vkey for vkey in vkeys if parse_vkey(vkey).algorithm == COSIGNATURE), None)
        if found is None:
            raise Invalid(f"witness {self.url}: expected a vkey of type 04 among its {len(vkeys)}")
        return found

    async def register(self, tenant: str, log: Registration) -> None:
        """See `Witness`."""
        await self._call("PUT", f"/operator/v1/logs/{tenant}", log.model_dump_json())

    async def logs(self, tenant: str) -> tuple[SeenLog, ...]:
        """See `Witness`."""
        return _parsed(await self._call("GET", f"/operator/v1/logs/{tenant}"), _Logs).logs

    async def _call(self, method: str, path: str, body: str | None = None) -> bytes:
        headers = {"Content-Type": "application/json"} if body is not None else {}
        what = f"witness {self.url}: {method} {path}"
        try:
            async with self.session.request(
                method, self.url + path, data=body, headers=headers, timeout=TIMEOUT, allow_redirects=False
            ) as response:
                content = await _bounded(response, what)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise Unavailable(f"{what}: {type(error).__name__}") from error
        if response.status >= 300:
            raise _ERRORS.get(response.status, Unavailable)(f"{what}: {response.status}")
        return content


_ERRORS: Final[dict[int, type[FolkmootError]]] = {
    400: Invalid, 401: Unauthorized, 403: Unauthorized, 409: Conflict, 413: LimitReached, 429: LimitReached,
}  # fmt: skip


async def _bounded(response: aiohttp.ClientResponse, what: str) -> bytes:
    found = bytearray()
    async for chunk in response.content.iter_any():
        found += chunk
        if len(found) > MAX_ANSWER:
            raise Invalid(f"{what}: the answer is larger than {MAX_ANSWER} bytes")
    return bytes(found)


def _parsed(content: bytes, model: type[Model]) -> Model:
    try:
        return model.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        raise Invalid(f"witness: {model.__name__.strip('_')}: field {first['loc']}: {first['msg']}") from None
