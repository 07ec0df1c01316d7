"""Where one tenant's processes live on this machine: ports, directories, environment. Pure; the values mirror the pods'.

Everything listens on the loopback. The environment's names are those of folkmoot_runtime.settings and of the processes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from folkmoot_cli.dev.processes import ProcessSpec
from folkmoot_core import names
from folkmoot_core.document import AgentEntry, TenantDocument
from folkmoot_core.resources.common import seconds

LOOPBACK = "127.0.0.1"
Account = tuple[str, tuple[str, ...]]  # ServiceAccount and the audiences it needs tokens for

CORE_AUDIENCES = (names.AUDIENCE_OPERATOR, names.AUDIENCE_BUS, names.AUDIENCE_BROKER, names.AUDIENCE_CONDUCTOR,
                  names.AUDIENCE_LEDGER, names.AUDIENCE_SANDBOX)  # fmt: skip
BROKER_AUDIENCES = (names.AUDIENCE_OPERATOR, names.AUDIENCE_CONDUCTOR, names.AUDIENCE_LEDGER)
AGENT_AUDIENCES = (
    names.AUDIENCE_BUS,
    names.AUDIENCE_BROKER,
    names.AUDIENCE_CONDUCTOR,
    names.AUDIENCE_LEDGER,
    names.AUDIENCE_SANDBOX,
)


@dataclass(frozen=True)
class Layout:
    """One tenant's place. `ports` are free ports by process name; `root` is a short path (Unix sockets have 107 bytes)."""

    document: TenantDocument
    root: Path
    trust: Path
    operator_url: str
    ports: dict[str, int]
    isolation: str  # of sandboxes: "bwrap" or "none"

    @staticmethod
    def doors(document: TenantDocument) -> list[str]:
        """Names of the doors that need a port."""
        agents = [f"sandbox-{a.name}" for a in document.agents if a.spec.tools.builtin.allowed()]
        return ["conductor", "operator-door", "ledger", "router", "broker", "sandbox-checks", *agents]

    def url(self, door: str) -> str:
        """Base URL of a door."""
        scheme = "http" if door.startswith("sandbox") else "https"
        return f"{scheme}://{LOOPBACK}:{self.ports[door]}"

    def tokens(self, account: str) -> Path:
        """Directory with an account's projected tokens."""
        return self.root / "tokens" / account

    def accounts(self) -> Iterator[Account]:
        """Every ServiceAccount that runs here, and the person at the terminal as the tenant's owner."""
        yield names.SA_CORE, CORE_AUDIENCES
        yield names.SA_BROKER, BROKER_AUDIENCES
        yield names.SA_OWNER, (names.AUDIENCE_CONDUCTOR, names.AUDIENCE_LEDGER)
        for agent in self.document.agents:
            yield names.agent_workload(agent.name), AGENT_AUDIENCES

    def specs(self) -> list[ProcessSpec]:
        """All processes, in the order in which they are started."""
        core = [self._bus(), self._router(), self._ledger(), self._conductor(), self._broker(), self._checks()]
        return [*core, *(spec for agent in self.document.agents for spec in self._agent(agent))]

    def _spec(self, name: str, module: str, account: str, env: dict[str, str], *, shared_run: str = "") -> ProcessSpec:
        run = self.root / (shared_run or name)
        base = {
            "FOLKMOOT_TENANT": self.document.tenant, "FOLKMOOT_NAMESPACE": self.document.namespace, "FOLKMOOT_POD": name,
            "FOLKMOOT_LISTEN_HOST": LOOPBACK, "FOLKMOOT_TRUST": str(self.trust), "FOLKMOOT_OPERATOR_URL": self.operator_url,
            "FOLKMOOT_CONDUCTOR_URL": self.url("conductor"), "FOLKMOOT_LEDGER_URL": self.url("ledger"),
            "FOLKMOOT_BROKER_URL": self.url("broker"), "FOLKMOOT_ROUTER_URL": self.url("router"),
            "FOLKMOOT_BUS_URL": f"unix://{self.root}/bus/bus/valkey.sock", "FOLKMOOT_RUN": str(run),
            "FOLKMOOT_DATA": str(self.root / "data" / name), "FOLKMOOT_TOKENS": str(self.tokens(account)),
        }  # fmt: skip
        return ProcessSpec(f"{self.document.tenant}/{name}", module, {**base, **env})

    def _bus(self) -> ProcessSpec:
        return self._spec("bus", "folkmoot_runtime.bus.server", names.SA_CORE, {})

    def _router(self) -> ProcessSpec:
        env = {"FOLKMOOT_PORT": str(self.ports["router"]), "FOLKMOOT_LEDGER_URL": f"unix://{self.ledger_socket('router')}"}
        return self._spec("router", "folkmoot_runtime.bus", names.SA_CORE, env, shared_run="bus")

    def _ledger(self) -> ProcessSpec:
        sockets = ",".join(f"{self.ledger_socket(p)}=core/{p}" for p in ("conductor", "router"))
        env = {"FOLKMOOT_PORT": str(self.ports["ledger"]), "FOLKMOOT_LEDGER_SOCKETS": sockets, "FOLKMOOT_WITNESS": "required"}
        return self._spec("ledger", "folkmoot_runtime.ledger", names.SA_CORE, env)

    def _conductor(self) -> ProcessSpec:
        endpoints = ",".join(
            f"{a.name}={self.url(f'sandbox-{a.name}')}" for a in self.document.agents if a.spec.tools.builtin.allowed()
        )
        env = {
            "FOLKMOOT_PORT": str(self.ports["conductor"]), "FOLKMOOT_OPERATOR_PORT": str(self.ports["operator-door"]),
            "FOLKMOOT_LEDGER_URL": f"unix://{self.ledger_socket('conductor')}", "FOLKMOOT_SANDBOX_URL": self.url("sandbox-checks"),
            "FOLKMOOT_SANDBOX_ENDPOINTS": endpoints,
        }  # fmt: skip
        return self._spec("conductor", "folkmoot_runtime.conductor", names.SA_CORE, env)

    def _broker(self) -> ProcessSpec:
        env = {
            "FOLKMOOT_PORT": str(self.ports["broker"]), "FOLKMOOT_KEYS": str(self.root / "keys"),
            "FOLKMOOT_PROVIDER_CA": str(self.root / "provider-ca"), "FOLKMOOT_SCRIPTS": str(self.root / "scripts"),
        }  # fmt: skip
        return self._spec("broker", "folkmoot_runtime.broker", names.SA_BROKER, env)

    def _checks(self) -> ProcessSpec:
        return self._sandbox("sandbox-checks", "", names.SA_CORE, ("bash",))

    def _agent(self, agent: AgentEntry) -> Iterable[ProcessSpec]:
        account = names.agent_workload(agent.name)
        tools = agent.spec.tools.builtin.allowed()
        if agent.suspended:
            return
        yield self._spec(account, "folkmoot_runtime.agent", account, {"FOLKMOOT_AGENT": agent.name})
        if tools:
            yield self._sandbox(f"sandbox-{agent.name}", agent.name, account, tools, seconds(agent.spec.sandbox.timeout))

    def _sandbox(self, name: str, agent: str, caller: str, tools: tuple[str, ...], timeout: int = 3600) -> ProcessSpec:
        env = {
            "FOLKMOOT_PORT": str(self.ports[name]), "FOLKMOOT_AGENT": agent, "FOLKMOOT_SANDBOX_CALLER": caller,
            "FOLKMOOT_SANDBOX_TOOLS": ",".join(tools), "FOLKMOOT_SANDBOX_ISOLATION": self.isolation,
            "FOLKMOOT_SANDBOX_TIMEOUT": str(timeout), "FOLKMOOT_WORKSPACE": str(self.root / "workspaces" / name),
        }  # fmt: skip
        # A sandbox has no ServiceAccount: its token directory stays empty.
        return self._spec(name, "folkmoot_runtime.sandbox", "nobody", env)

    def ledger_socket(self, producer: str) -> Path:
        """Unix socket over which one of the core's processes speaks to the ledger."""
        return self.root / f"ledger-{producer}.sock"
