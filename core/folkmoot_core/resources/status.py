"""`status` of the five kinds: what the operator writes there, and the shape that the CRDs declare.

Two writers share it by server-side apply: the leader (field manager FIELD_MANAGER) owns everything but what is marked "reported";
the report path (REPORT_MANAGER, on Tenants one per reporter) owns that, with a rising sequence. Never prompts, output or logs:
digests, references and at most 1 KiB of preview. `conditions` is a map list keyed by `type`; every other list is atomic.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel


class Status(BaseModel):
    """Base: camelCase outside; unknown fields are ignored, because a newer operator may have written them."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True)

    def manifest(self) -> dict[str, Any]:
        """The form written to the API server: camelCase, without unset fields."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class ConditionStatus(Status):
    """As metav1.Condition."""

    type: str = Field(max_length=316, description="Type of the condition.")
    status: Literal["True", "False", "Unknown"] = Field(description="True, False or Unknown.")
    reason: str = Field(max_length=256, description="CamelCase word; see docs/kinds/.")
    message: str = Field(default="", max_length=4096, description="What was expected, what was found, what to do.")
    observed_generation: int = Field(default=0, ge=0, description="Generation of the spec this was computed from.")
    last_transition_time: str = Field(default="", max_length=40, description="When status last changed (RFC 3339).")


class Conditioned(Status):
    """What all kinds have."""

    observed_generation: int | None = Field(default=None, ge=0, description="Generation of the spec that status speaks of.")
    conditions: tuple[ConditionStatus, ...] = Field(default=(), max_length=32, description="Conditions, keyed by type.")


class IdentityStatus(Status):
    """Both QNFT hashes, recomputable with `folkmoot identity`."""

    scope: str = Field(max_length=512, description="Path federation/organization/tenant[/agent].")
    seed: str = Field(max_length=64, description="Who: SHA-256 of name, scope and cause.")
    commitment: str = Field(max_length=64, description="What it may do: moves with the grants.")


class LogStatus(Status):
    """Reported by the core: the tenant's audit log."""

    origin: str = Field(default="", max_length=256, description="Origin line of the log's checkpoints.")
    vkey: str = Field(default="", max_length=512, description="Verifier key of the log (C2SP signed note).")


class CoreReported(Status):
    """Reported by the core."""

    sequence: int = Field(default=0, ge=0, description="Number of the report this stands on.")
    document: str = Field(default="", max_length=80, description="Digest of the tenant document that the conductor works with.")


class ProviderStatus(Status):
    name: str = Field(max_length=40, description="Provider.")
    available: bool = Field(description="Whether its last call or probe went through.")
    reason: str = Field(default="", max_length=256, description="CamelCase word.")
    message: str = Field(default="", max_length=1024, description="What was found.")


class BrokerReported(Status):
    """Reported by the broker."""

    sequence: int = Field(default=0, ge=0, description="Number of the report this stands on.")
    providers: tuple[ProviderStatus, ...] = Field(default=(), max_length=32, description="Availability by provider.")


class TeardownStatus(Status):
    """How far a deletion has come; survives a change of leader."""

    sealed: bool = Field(default=False, description="The log is closed.")
    size: int | None = Field(default=None, ge=0, description="Entries in the sealed log.")
    exported: str = Field(default="", max_length=512, description="File name on the export volume.")


class TenantStatus(Conditioned):
    namespace: str | None = Field(default=None, max_length=63, description="Namespace of the tenant.")
    agents: int | None = Field(default=None, ge=0, description="Agents in it.")
    identity: IdentityStatus | None = Field(default=None, description="QNFT identity.")
    document: str | None = Field(default=None, max_length=80, description="Digest of the last document the conductor accepted.")
    teardown: TeardownStatus | None = Field(default=None, description="Progress of a deletion.")
    log: LogStatus | None = Field(default=None, description="The audit log (reported).")
    core: CoreReported | None = Field(default=None, description="What the core reported.")
    broker: BrokerReported | None = Field(default=None, description="What the broker reported.")


class AgentReported(Status):
    """Reported by the core."""

    sequence: int = Field(default=0, ge=0, description="Number of the report this stands on.")
    alive: bool = Field(default=False, description="Seen on the bus within the last 30 s.")
    identity_bound: bool = Field(default=False, description="Its key is bound to its identity in the ledger.")
    commitment: str = Field(default="", max_length=64, description="Commitment it is bound under.")
    key_fingerprint: str = Field(default="", max_length=128, description="Fingerprint of its key.")


class AgentStatus(Conditioned):
    identity: IdentityStatus | None = Field(default=None, description="QNFT identity.")
    ready_replicas: int | None = Field(default=None, ge=0, description="Pods that are ready.")
    reported: AgentReported | None = Field(default=None, description="What the core reported.")


class CouncilStatus(Conditioned):
    members: int | None = Field(default=None, ge=0, description="Members.")
    quorum: str | None = Field(default=None, max_length=64, description="Votes needed and share, as text.")


class GatePolicyStatus(Conditioned):
    """Conditions only."""


class ResultStatus(Status):
    digest: str = Field(default="", max_length=80, description="SHA-256 of the whole result.")
    ref: str = Field(default="", max_length=512, description="Where the whole result is.")
    preview: str = Field(default="", max_length=1024, description="At most 1 KiB of it.")


class GateStatus(Status):
    verdict: str = Field(default="", max_length=64, description="Verdict of the last submission.")
    submission: int = Field(default=0, ge=0, description="Number of the last submission.")
    shapes: tuple[str, ...] = Field(default=(), max_length=64, description="Threat shapes that were found.")


class VotesStatus(Status):
    for_: int = Field(default=0, ge=0, alias="for", description="Votes in favour.")
    against: int = Field(default=0, ge=0, description="Votes against.")
    dissent: int = Field(default=0, ge=0, description="Dissents kept on record.")


class UsageStatus(Status):
    input_tokens: int = Field(default=0, ge=0, description="Input tokens.")
    output_tokens: int = Field(default=0, ge=0, description="Output tokens.")
    cached_input_tokens: int = Field(default=0, ge=0, description="Input tokens read from a provider's cache.")
    cost: str | None = Field(default=None, max_length=32, description="Decimal text; absent where a price is unknown.")
    currency: str | None = Field(default=None, max_length=3, description="ISO 4217.")


class LedgerStatus(Status):
    first: int | None = Field(default=None, ge=0, description="Index of the session's first entry.")
    last: int | None = Field(default=None, ge=0, description="Index of its last entry.")


class SessionStatus(Conditioned):
    accepted_generation: int | None = Field(default=None, ge=0, description="Generation that the conductor accepted.")
    phase: str | None = Field(
        default=None, max_length=32, description="Pending, Running, AwaitingApproval, Succeeded, Failed or Cancelled (reported)."
    )
    sequence: int | None = Field(default=None, ge=0, description="Number of the report this stands on (reported).")
    reason: str | None = Field(default=None, max_length=256, description="Why it is in this phase (reported).")
    message: str | None = Field(default=None, max_length=1024, description="The same as a sentence (reported).")
    start_time: str | None = Field(default=None, max_length=40, description="When work began (reported).")
    completion_time: str | None = Field(default=None, max_length=40, description="When it ended (reported).")
    result: ResultStatus | None = Field(default=None, description="The result (reported).")
    gate: GateStatus | None = Field(default=None, description="The gate (reported).")
    votes: VotesStatus | None = Field(default=None, description="The vote (reported).")
    usage: UsageStatus | None = Field(default=None, description="What it used (reported).")
    ledger: LedgerStatus | None = Field(default=None, description="Its entries in the audit log (reported).")
