"""What every process reads from its environment, once, at start. wiring.md §3: only what start-up needs.

Paths default to the mount points in the pods (folkmoot_core.names); `folkmoot dev` sets other ones.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from folkmoot_core import names
from folkmoot_core.errors import Invalid


@dataclass(frozen=True)
class Settings:
    """One process's settings."""

    tenant: str
    """FOLKMOOT_TENANT: the tenant's name."""
    namespace: str
    """FOLKMOOT_NAMESPACE: the pod's own namespace; tokens of any other are refused."""
    agent: str
    """FOLKMOOT_AGENT: the agent's name, in agent and sandbox pods; empty elsewhere."""
    pod: str
    """FOLKMOOT_POD: the pod's name, for logs and consumer names."""
    listen_host: str
    """FOLKMOOT_LISTEN_HOST: address to listen on; 0.0.0.0 in pods, 127.0.0.1 in `folkmoot dev`."""
    port: int
    """FOLKMOOT_PORT: port of the process's main door; 0 means the process's own default."""
    data: Path
    """FOLKMOOT_DATA: directory on the volume; each process keeps to its own subdirectory."""
    run: Path
    """FOLKMOOT_RUN: memory-backed directory of this container (keys, sockets, liveness file)."""
    tokens: Path
    """FOLKMOOT_TOKENS: directory with one projected token per audience."""
    trust: Path
    """FOLKMOOT_TRUST: directory with ca.crt, jwks.json and issuer."""
    operator_url: str
    """FOLKMOOT_OPERATOR_URL: the operator's endpoint, https."""
    conductor_url: str
    """FOLKMOOT_CONDUCTOR_URL: the conductor's service door."""
    ledger_url: str
    """FOLKMOOT_LEDGER_URL: the ledger's TLS door, or unix:///path for processes of the core pod."""
    broker_url: str
    """FOLKMOOT_BROKER_URL."""
    router_url: str
    """FOLKMOOT_ROUTER_URL: the router's door for bus credentials."""
    bus_url: str
    """FOLKMOOT_BUS_URL: rediss://host:port, redis://127.0.0.1:port or unix:///path (the latter two in dev only)."""
    sandbox_url: str
    """FOLKMOOT_SANDBOX_URL: this agent's sandbox; for the conductor that of the checks; empty: none."""
    timeout: float = 30.0
    """Seconds that a call to a peer inside the tenant may take."""

    def token_file(self, audience: str) -> Path:
        """File with the projected token for an audience; re-read at every use, because the kubelet renews it."""
        return self.tokens / audience


def from_environment(env: Mapping[str, str] | None = None) -> Settings:
    """Read the environment; raises `Invalid` naming the variable that is missing or wrong."""
    env = os.environ if env is None else env

    def need(key: str) -> str:
        value = env.get(f"FOLKMOOT_{key}", "")
        if not value:
            raise Invalid(f"environment variable FOLKMOOT_{key} is not set")
        return value

    def url(key: str, default: str = "") -> str:
        return env.get(f"FOLKMOOT_{key}_URL", default).rstrip("/")

    port = env.get("FOLKMOOT_PORT", "0")
    if not port.isdigit():
        raise Invalid(f"environment variable FOLKMOOT_PORT is {port!r}; expected a number")
    return Settings(
        tenant=need("TENANT"), namespace=need("NAMESPACE"), agent=env.get("FOLKMOOT_AGENT", ""), pod=env.get("FOLKMOOT_POD", "local"),
        listen_host=env.get("FOLKMOOT_LISTEN_HOST", "0.0.0.0"),  # noqa: S104 - a pod's door; NetworkPolicy says who reaches it
        port=int(port), data=Path(env.get("FOLKMOOT_DATA", "/data")), run=Path(env.get("FOLKMOOT_RUN", "/run/folkmoot")),
        tokens=Path(env.get("FOLKMOOT_TOKENS", names.TOKEN_DIR)), trust=Path(env.get("FOLKMOOT_TRUST", names.TRUST_DIR)),
        operator_url=url("OPERATOR"), conductor_url=url("CONDUCTOR", f"https://{names.CORE}:{names.PORT_CONDUCTOR}"),
        ledger_url=url("LEDGER", f"https://{names.CORE}:{names.PORT_LEDGER}"), broker_url=url("BROKER", f"https://{names.BROKER}:{names.PORT_BROKER}"),
        router_url=url("ROUTER", f"https://{names.CORE}:{names.PORT_ROUTER}"), bus_url=url("BUS", f"rediss://{names.CORE}:{names.PORT_BUS}"),
        sandbox_url=url("SANDBOX"),
    )  # fmt: skip
