"""The values that pass between the operator's shell and the plans: the installation, a plan, what is wrong with an object."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from folkmoot_core.conditions import REASON_INVALID, Condition, false

Manifest = dict[str, Any]


@dataclass(frozen=True)
class Installation:
    """What the chart's values and the operator's start say; the same for every tenant. Read once, except `jwks` and
    `ca_bundle`, which the operator keeps current."""

    system_namespace: str
    """Namespace of the operator's pods; NetworkPolicies open to it by the label component=operator."""
    federation: str
    """First part of every identity's scope."""
    operator_service_url: str
    """Base URL of the operator's endpoint as pods reach it, e.g. https://folkmoot-operator.folkmoot-system.svc:8443."""
    operator_image: str
    runtime_image: str
    issuer: str
    """Issuer of the cluster's ServiceAccount tokens."""
    jwks: str
    """The cluster's JWKS (JSON text)."""
    ca_bundle: str
    """PEM of the installation's CA."""
    version: str
    """Version of the operator, for the label app.kubernetes.io/version of top-level objects (never of pod templates)."""
    image_pull_policy: str = "IfNotPresent"
    image_pull_secrets: tuple[str, ...] = ()
    """Names of pull Secrets; each tenant's namespace must hold its own copy (the operator reads and writes no Secrets)."""
    storage_class: str | None = None
    """StorageClass of core and broker volumes where a Tenant names none; None: the cluster's default."""
    witness_url: str = ""
    """Submission prefix of the installation's witness, as brokers reach it (https://<service>.<namespace>.svc:8447); empty: the
    installation has no witness, and logs publish without one."""
    witness_key: str = ""
    """Its vkey (a cosigner's, type 0x04). Empty while the operator has not heard it; kept current like `jwks`."""
    export_configured: bool = False
    """Whether the operator has an export volume. Without one, deletionPolicy Delete stalls."""
    cluster_domain: str = "cluster.local"
    cluster_dns_cidrs: tuple[str, ...] = ()
    """Addresses of a node-local DNS cache, if any; the cluster's DNS pods in kube-system are always reachable."""
    cluster_cidrs: tuple[str, ...] = ()
    """Further ranges that are never "outside" (public pod or node ranges); private ranges are excluded already."""


@dataclass(frozen=True)
class Plan:
    """What should exist for one object. `objects` are complete manifests, to be applied server-side in this order (field
    manager names.FIELD_MANAGER, force); everything else that carries LABEL_OWNER_UID of the owner is to be pruned.
    `conditions` are those that can be told without looking at the children."""

    objects: tuple[Manifest, ...] = ()
    conditions: tuple[Condition, ...] = ()
    requeue_after: float | None = None

    def get(self, kind: str, name: str) -> Manifest | None:
        """The planned object of a kind and name, or None."""
        return next((o for o in self.objects if o["kind"] == kind and o["metadata"]["name"] == name), None)


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: where, and a sentence that says what was expected, what was found, what to do."""

    field: str
    message: str
    reason: str = REASON_INVALID

    def __str__(self) -> str:
        return f"{self.field}: {self.message}" if self.field else self.message


@dataclass(frozen=True)
class Problems:
    """An object that cannot be used as it is. A value, not an exception: the reporter turns it into conditions."""

    kind: str
    namespace: str
    name: str
    uid: str
    generation: int
    items: tuple[Problem, ...] = field(default=())

    def conditions(self) -> tuple[Condition, ...]:
        """`Accepted` false (or `ResolvedRefs` false for what is merely not there yet) with every sentence."""
        message = "; ".join(str(item) for item in self.items)
        reason = self.items[0].reason if self.items else REASON_INVALID
        return (false("ResolvedRefs" if reason == "RefNotFound" else "Accepted", reason, message),)
