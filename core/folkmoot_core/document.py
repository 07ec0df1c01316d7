"""The tenant document: everything the tenant's processes need to know, as one full set. wiring.md §3.

The operator (or `folkmoot dev`) makes it with the pure `folkmoot_core.plan.document` and PUTs it to the conductor; a
missed deletion heals because the set is always whole. Router and broker fetch their parts from the conductor.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from folkmoot_core.canonical import canonical_json, digest
from folkmoot_core.identity import GrantsV1
from folkmoot_core.resources import AgentSpec, CouncilSpec, GatePolicySpec, ProviderSpec, SessionSpec


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Identity(_Frozen):
    """QNFT seed and commitment with what they were made from."""

    name: str
    scope: str
    cause: str
    seed: str
    commitment: str
    grants: GrantsV1


class AgentEntry(_Frozen):
    name: str
    spec: AgentSpec
    system_prompt: str = ""  # resolved from spec.systemPrompt or the ConfigMap
    identity: Identity
    suspended: bool = False


class CouncilEntry(_Frozen):
    name: str
    spec: CouncilSpec


class GateEntry(_Frozen):
    name: str
    spec: GatePolicySpec


class TenantDocument(_Frozen):
    """PUT to the conductor's operator door. `digest()` is what `Ready` waits for and what entries carry as `config`."""

    tenant: str
    tenant_uid: str
    namespace: str
    generation: int
    identity: Identity
    providers: tuple[ProviderSpec, ...] = ()
    residency: tuple[str, ...] = ()  # allowed regions; empty: no restriction
    currency: str = "USD"  # of the providers' prices; the broker writes it beside each cost
    agents: tuple[AgentEntry, ...] = ()
    councils: tuple[CouncilEntry, ...] = ()
    gates: tuple[GateEntry, ...] = ()
    suspended: bool = False

    def digest(self) -> str:
        """Digest of the canonical form without `generation`, so that a spec touched without effect changes nothing."""
        return digest(canonical_json(self.model_dump(mode="json", by_alias=True, exclude={"generation"}, exclude_none=True)))


class SessionOrder(_Frozen):
    """PUT to the conductor's operator door, `/operator/v1/sessions/{uid}`; idempotent by uid and generation."""

    uid: str
    name: str
    generation: int
    spec: SessionSpec
    inputs: dict[str, dict[str, str]] = {}  # input name → ConfigMap key → base64 content


SessionPhase = Literal["Pending", "Running", "AwaitingApproval", "Succeeded", "Failed", "Cancelled"]


class SessionReport(_Frozen):
    """What the conductor says of one session. `sequence` rises with every change; an older report never overwrites a newer."""

    uid: str
    name: str
    generation: int
    sequence: int
    phase: SessionPhase
    reason: str = ""
    message: str = ""
    started: str = ""  # RFC 3339
    finished: str = ""
    result_digest: str = ""
    result_preview: str = ""  # at most 1 KiB
    result_ref: str = ""
    gate_verdict: str = ""
    gate_submission: int = 0
    gate_shapes: tuple[str, ...] = ()
    votes_for: int = 0
    votes_against: int = 0
    votes_dissent: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    cost: str | None = None
    currency: str | None = None
    ledger_first: int | None = None
    ledger_last: int | None = None


class AgentReport(_Frozen):
    """What the core knows of one agent: alive on the bus, identity bound in the ledger."""

    name: str
    alive: bool
    identity_bound: bool
    key_fingerprint: str = ""
    commitment: str = ""
    bound_seed: str = ""  # seed that this name was first bound to in this tenant's log; another one is an IdentityConflict


class ProviderReport(_Frozen):
    name: str
    available: bool
    reason: str = ""
    message: str = ""


class Report(_Frozen):
    """Body of the operator endpoint's `POST /v1/reports` (token, audience folkmoot-operator). Partial: absent parts are unchanged."""

    reporter: Literal["core", "broker"]
    sequence: int  # rises per reporter; kept on its volume
    document_digest: str = ""
    vkey: str = ""
    origin: str = ""
    sessions: tuple[SessionReport, ...] = Field(default=(), max_length=1000)  # of the core alone, as are agents
    agents: tuple[AgentReport, ...] = Field(default=(), max_length=1000)
    providers: tuple[ProviderReport, ...] = Field(default=(), max_length=32)


class CertificateRequest(_Frozen):
    """Body of the operator endpoint's `POST /v1/certificates` (token, audience folkmoot-operator). Names in the CSR are ignored:
    the token's ServiceAccount decides which names the certificate gets."""

    csr: str  # PEM PKCS #10


class CertificateAnswer(_Frozen):
    certificate: str  # PEM leaf
    ca: str  # PEM bundle
    not_after: str  # RFC 3339
