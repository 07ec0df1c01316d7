"""The installation's witness on this machine: where its process lives, what key it has, and telling it of the tenants' logs.

In a cluster the chart runs the process, and the operator asks for the key and registers each log that a core reports.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import httpx2
from pydantic import ValidationError

from folkmoot_cli.dev.layout import LOOPBACK
from folkmoot_cli.dev.processes import ProcessSpec
from folkmoot_core import names
from folkmoot_core.document import LogReport
from folkmoot_core.errors import Unavailable

TENANT = "system"  # reserved: no tenant is called so
NAME = "witness"
DOORS = (NAME, "witness-operator")
AUDIENCES = (names.AUDIENCE_OPERATOR,)


@dataclass(frozen=True)
class Witness:
    """Its place. `ports` by door; `root` is a short path of its own."""

    root: Path
    trust: Path
    operator_url: str
    ports: dict[str, int]

    @property
    def url(self) -> str:
        """Submission prefix, as brokers reach it."""
        return f"https://{LOOPBACK}:{self.ports[NAME]}"

    @property
    def operator_door(self) -> str:
        """Base URL of the door for the one client certificate."""
        return f"https://{LOOPBACK}:{self.ports['witness-operator']}"

    @property
    def tokens(self) -> Path:
        """Directory with its projected token."""
        return self.root / "tokens" / names.SA_WITNESS

    def spec(self) -> ProcessSpec:
        """Its process, with the environment that the chart gives it."""
        env = {
            "FOLKMOOT_TENANT": TENANT, "FOLKMOOT_NAMESPACE": names.SYSTEM_NAMESPACE, "FOLKMOOT_POD": NAME, "FOLKMOOT_LISTEN_HOST": LOOPBACK,
            "FOLKMOOT_PORT": str(self.ports[NAME]), "FOLKMOOT_OPERATOR_PORT": str(self.ports["witness-operator"]),
            "FOLKMOOT_TRUST": str(self.trust), "FOLKMOOT_OPERATOR_URL": self.operator_url, "FOLKMOOT_TOKENS": str(self.tokens),
            "FOLKMOOT_DATA": str(self.root / "data"), "FOLKMOOT_RUN": str(self.root / NAME),
        }  # fmt: skip
        return ProcessSpec(f"{TENANT}/{NAME}", "folkmoot_runtime.witness", env)

    async def key(self, client: httpx2.AsyncClient) -> str:
        """The vkey of its cosignatures that documents name (type 0x04)."""
        answer = await client.get(f"{self.operator_door}/operator/v1/vkeys")
        answer.raise_for_status()
        return str(answer.json()["vkeys"][0])

    async def register(self, client: httpx2.AsyncClient, uid: str, log: LogReport) -> None:
        """Have it cosign this log of the tenant with that uid."""
        body = {"origin": log.origin, "vkeys": log.vkeys, "rotation": log.rotation}
        answer = await client.put(f"{self.operator_door}/operator/v1/logs/{uid}", json=body)
        if answer.is_error:
            raise Unavailable(f"the witness refused the log {log.origin}: {answer.text[:300]}")


async def reported(socket: Path) -> LogReport:
    """What a ledger says of its log over a core's Unix socket, as the core reports it to the operator."""
    async with httpx2.AsyncClient(transport=httpx2.AsyncHTTPTransport(uds=str(socket)), base_url="http://ledger") as client:
        answer = await client.get("/v1/status")
    answer.raise_for_status()
    try:
        return LogReport.model_validate_json(answer.content)
    except ValidationError as error:
        raise Unavailable(f"{socket}: the ledger answered something else than a LogReport") from error
