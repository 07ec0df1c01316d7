"""Status of the five kinds, as models: what the operator writes, what `kubectl get` shows. Fields are only ever added.

Two writers with different field managers: the leader owns conditions and what follows from plans, the report path owns
phase, result, usage and everything else that core and broker report, guarded by `sequence`. conventions.md "Status".
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from folkmoot_core.resources.common import Spec

Text = Annotated[str, StringConstraints(max_length=1024)]
Word = Annotated[str, StringConstraints(max_length=253)]
Hex = Annotated[str, StringConstraints(max_length=64)]
DigestText = Annotated[str, StringConstraints(max_length=80)]
Time = Annotated[str, Field(json_schema_extra={"format": "date-time"})]


class ConditionStatus(Spec):
    """One aspect of the object's state."""

    type: Annotated[str, StringConstraints(max_length=316)] = Field(description="What the condition is about, such as Ready.")
    status: Annotated[str, StringConstraints(pattern=r"^(True|False|Unknown)$")] = Field(description="True, False or Unknown.")
    reason: Annotated[str, StringConstraints(min_length=1, max_length=256)] = Field(
        description="One CamelCase word; each is explained in docs/kinds/."
    )
    message: Annotated[str, StringConstraints(max_length=32768)] = Field(
        description="For people: what was expected, what was found, what to do."
    )
    observed_generation: int | None = Field(default=None, ge=0, description="Generation it was computed from.")
    last_transition_time: Time = Field(description="When status last changed.")


class BaseStatus(Spec):
    """What every kind's status has."""

    observed_generation: int | None = Field(default=None, ge=0, description="Generation of the spec that this status speaks of.")
    conditions: tuple[ConditionStatus, ...] | None = Field(
        default=None,
        max_length=32,
        description="State by aspect; Ready sums up.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )


class IdentityStatus(Spec):
    """QNFT identity, recomputable from the manifests with `folkmoot identity`."""

    scope: Annotated[str, StringConstraints(max_length=512)] | None = Field(
        default=None, description="Path federation/organization/tenant[/agent]."
    )
    seed: Hex | None = Field(default=None, description="Who: SHA-256 over name, scope and cause.")
    commitment: Hex | None = Field(default=None, description="What it may do: SHA-256 over seed, parent's commitment and grants.")
    grants_digest: Hex | None = Field(default=None, description="SHA-256 of the grants' canonical JSON.")


class AuditStatus(Spec):
    """The tenant's log, as an auditor needs it."""

    origin: Word | None = Field(default=None, description="Origin line of the log's checkpoints.")
    vkey: Annotated[str, StringConstraints(max_length=512)] | None = Field(
        default=None, description="Verifier key of the log (C2SP signed note)."
    )
    vkeys: tuple[Annotated[str, StringConstraints(max_length=2304)], ...] | None = Field(
        default=None, max_length=4, description="All verifier keys of the log: Ed25519, then ML-DSA-44."
    )
    size: int | None = Field(default=None, ge=0, description="Entries under the published checkpoint; written every few minutes.")
    root: Hex | None = Field(default=None, description="Root hash of that checkpoint.")
    entries: int | None = Field(default=None, ge=0, description="Entries on disk.")
    state: Word | None = Field(default=None, description="Open, Closed or Frozen.")
    reason: Word | None = Field(default=None, description="Why it is frozen, or why no newer checkpoint is published.")
    message: Text | None = Field(default=None, description="For people.")
    fork: Text | None = Field(default=None, description="What contradicts this log, as remembered outside its volume.")
    witnessed: tuple[Word, ...] | None = Field(
        default=None, max_length=16, description="Witnesses whose cosignatures the published checkpoint carries."
    )
    anchored: Time | None = Field(default=None, description="Time in the newest timestamp (RFC 3161) that was verified.")
    anchored_size: int | None = Field(default=None, ge=0, description="Entries that this timestamp covers.")
    unanchored: Text | None = Field(default=None, description="Why an authority gives no timestamps, by its name.")
    sealed_size: int | None = Field(default=None, ge=0, description="Entries of the log when it was sealed for good.")
    exported: Annotated[str, StringConstraints(max_length=512)] | None = Field(
        default=None, description="Where the sealed log was exported to."
    )


class ProviderStatus(Spec):
    """What the broker says of one provider."""

    name: Word = Field(description="Name of the provider.")
    available: bool = Field(default=False, description="Whether calls can be made: key mounted, server answers.")
    reason: Word | None = Field(default=None, description="One CamelCase word.")
    message: Text | None = Field(default=None, description="For people.")


class ReporterStatus(Spec):
    """How far one reporter's reports were taken in; an older one never overwrites a newer one."""

    name: Word = Field(description="core or broker.")
    sequence: int = Field(ge=0, description="Highest sequence taken in.")


class TenantStatus(BaseStatus):
    """Status of a Tenant."""

    namespace: Word | None = Field(default=None, description="The tenant's namespace.")
    identity: IdentityStatus | None = Field(default=None, description="The tenant's identity.")
    agents: int | None = Field(default=None, ge=0, description="Agents in the namespace.")
    document_digest: DigestText | None = Field(default=None, description="Tenant document that the conductor acknowledged.")
    reported_document: DigestText | None = Field(default=None, description="Tenant document that the core says it works with.")
    audit: AuditStatus | None = Field(default=None, description="The tenant's log.")
    providers: tuple[ProviderStatus, ...] | None = Field(
        default=None,
        max_length=32,
        description="Providers, as the broker sees them.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )
    reporters: tuple[ReporterStatus, ...] | None = Field(
        default=None,
        max_length=4,
        description="Reports taken in, by reporter.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )
    sequence: int | None = Field(default=None, ge=0, description="Highest report sequence taken in from the core.")


class AgentStatus(BaseStatus):
    """Status of an Agent."""

    identity: IdentityStatus | None = Field(default=None, description="The agent's identity.")
    replicas: int | None = Field(default=None, ge=0, description="Pods wanted.")
    ready_replicas: int | None = Field(default=None, ge=0, description="Pods that are ready.")
    alive: bool | None = Field(default=None, description="Whether the agent is alive on the bus, as the core sees it.")
    key_fingerprint: DigestText | None = Field(default=None, description="Key that the agent bound in the ledger at its start.")
    bound_commitment: Hex | None = Field(default=None, description="Commitment that the key was bound with.")
    bound_seed: Hex | None = Field(default=None, description="Seed that this name was first bound to in the tenant's log.")
    sequence: int | None = Field(default=None, ge=0, description="Highest report sequence taken in.")


class CouncilStatus(BaseStatus):
    """Status of a Council."""

    members: int | None = Field(default=None, ge=0, description="Members.")


class GatePolicyStatus(BaseStatus):
    """Status of a GatePolicy."""


class ResultStatus(Spec):
    """Where the result is; its content is in the core's store."""

    digest: DigestText | None = Field(default=None, description="SHA-256 of the result.")
    preview: Text | None = Field(default=None, description="At most 1 KiB of it.")
    ref: Annotated[str, StringConstraints(max_length=512)] | None = Field(
        default=None, description="Reference in the core's store."
    )


class GateStatus(Spec):
    """What the gate said."""

    verdict: Word | None = Field(default=None, description="Approved, Revise, Blocked or Escalated.")
    submission: int | None = Field(default=None, ge=0, description="Which submission it speaks of.")
    shapes: tuple[Annotated[str, StringConstraints(max_length=64)], ...] | None = Field(
        default=None, max_length=64, description="Threat shapes that were found."
    )


class VotesStatus(Spec):
    """How the council voted."""

    for_: int | None = Field(default=None, ge=0, alias="for", description="In favour, by weight.")
    against: int | None = Field(default=None, ge=0, description="Against, by weight.")
    dissent: int | None = Field(default=None, ge=0, description="Members whose dissent is on record.")


class UsageStatus(Spec):
    """What it took."""

    input_tokens: int | None = Field(default=None, ge=0, description="Input tokens, cached included.")
    output_tokens: int | None = Field(default=None, ge=0, description="Output tokens.")
    cached_input_tokens: int | None = Field(default=None, ge=0, description="Input tokens read from a provider's cache.")
    cost: Annotated[str, StringConstraints(max_length=32)] | None = Field(
        default=None, description="Cost as decimal text; absent when a model has no price."
    )
    currency: Annotated[str, StringConstraints(max_length=3)] | None = Field(default=None, description="ISO 4217.")


class LedgerStatus(Spec):
    """The session's entries in the tenant's log."""

    first: int | None = Field(default=None, ge=0, description="First entry.")
    last: int | None = Field(default=None, ge=0, description="Last entry.")


class SessionStatus(BaseStatus):
    """Status of a Session."""

    phase: (
        Annotated[str, StringConstraints(pattern=r"^(Pending|Running|AwaitingApproval|Succeeded|Failed|Cancelled)$")] | None
    ) = Field(default=None, description="Pending, Running, AwaitingApproval, Succeeded, Failed or Cancelled.")
    reason: Word | None = Field(default=None, description="One CamelCase word on the phase.")
    message: Text | None = Field(default=None, description="For people.")
    result: ResultStatus | None = Field(default=None, description="Where the result is.")
    gate: GateStatus | None = Field(default=None, description="What the gate said.")
    votes: VotesStatus | None = Field(default=None, description="How the council voted.")
    usage: UsageStatus | None = Field(default=None, description="What it took.")
    ledger: LedgerStatus | None = Field(default=None, description="The session's entries in the tenant's log.")
    sequence: int | None = Field(default=None, ge=0, description="Highest report sequence taken in.")
    start_time: Time | None = Field(default=None, description="When the conductor opened it.")
    completion_time: Time | None = Field(default=None, description="When it ended.")
    duration: Annotated[str, StringConstraints(max_length=20)] | None = Field(
        default=None, description="From start to end, such as 4m12s; set when it ended."
    )
