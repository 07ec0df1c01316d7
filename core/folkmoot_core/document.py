"""The tenant document: everything the tenant's processes need to know, as one full set. wiring.md §3.

The operator (or `folkmoot dev`) makes it with the pure `folkmoot_core.plan.document` and PUTs it to the conductor; a
missed deletion heals because the set is always whole. Router and broker fetch their parts from the conductor.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from folkmoot_core.canonical import canonical_json, digest
from folkmoot_core.identity import GrantsV1
from folkmoot_core.resources import AgentSpec, CouncilSpec, GatePolicySpec, ProviderSpec, SessionSpec

MAX_VKEY: Final = 2304  # characters: the longest is of ML-DSA-44, with a name of 255 bytes


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


class WitnessEntry(_Frozen):
    """A witness that cosigns checkpoints (C2SP tlog-witness): the installation's own first, then those of the manifest."""

    name: str  # as in the manifest; "cluster" for the installation's own
    key: str  # vkey of a cosigner (type 0x04 or 0x06)
    url: str  # submission prefix; the broker appends /add-checkpoint


class TimestampAuthorityEntry(_Frozen):
    """An RFC 3161 authority, with the certificates that its tokens are checked against."""

    name: str
    url: str
    certificates: str  # PEM: the authority's own certificate first, then intermediates, the pinned root last
    policy: str = ""  # object identifier that tokens must name; '': whichever


class AuditEntry(_Frozen):
    """How the tenant's log is fenced, anchored and kept; from `spec.audit` and the installation."""

    witnesses: tuple[WitnessEntry, ...] = ()
    witness_quorum: int = 0  # of the manifest's witnesses; the installation's own must always cosign
    authorities: tuple[TimestampAuthorityEntry, ...] = ()
    anchor_entries: int = 256
    anchor_seconds: int = 60
    retention_days: int = 366  # never below 184


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
    audit: AuditEntry = AuditEntry()

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


class LogReport(_Frozen):
    """What the core says of its log. `GET /v1/status` of the ledger's Unix socket answers it."""

    origin: str
    vkeys: tuple[Annotated[str, Field(max_length=MAX_VKEY)], ...] = Field(
        default=(), max_length=4
    )  # of the log's own signatures: Ed25519, then ML-DSA-44
    rotation: str = Field(default="", max_length=8192)  # statement of the last exchange of keys, signed by both
    size: int = Field(default=0, ge=0)  # of the published checkpoint
    root: str = ""  # hex
    entries: int = Field(default=0, ge=0)  # durable
    witnessed: tuple[str, ...] = Field(default=(), max_length=16)  # names whose cosignature the published checkpoint carries
    anchored_size: int = 0
    anchored: str = ""  # RFC 3339 genTime of the newest verified token
    unanchored: str = Field(default="", max_length=1024)  # why an authority gives no tokens, by name; '' when all do
    state: Literal["Open", "Closed", "Frozen"] = "Open"
    reason: str = ""  # of Frozen, or why no checkpoint is published, such as ForkDetected, WitnessUnavailable
    message: str = ""
    asked: int = 0  # epoch seconds at which the conductor asked for this; the ledger leaves it


class Report(_Frozen):
    """Body of the operator endpoint's `POST /v1/reports` (token, audience folkmoot-operator). Partial: absent parts are unchanged."""

    reporter: Literal["core", "broker"]
    sequence: int  # rises per reporter; kept on its volume
    document_digest: str = ""
    vkey: str = ""
    origin: str = ""
    log: LogReport | None = None  # of the core alone
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
