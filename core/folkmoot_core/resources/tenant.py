"""`Tenant` (tenants.folkmoot.dev, cluster-scoped): a customer or team."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from folkmoot_core.resources.audit import Audit
from folkmoot_core.resources.common import (
    NAMED_LIST,
    Cause,
    ConfigMapKeyRef,
    Decimal,
    Name,
    ObjectName,
    Quantity,
    Resources,
    SecretKeyRef,
    Spec,
    Subject,
)
from folkmoot_core.resources.rules import Rule, immutable, plain_cause, unique

ProviderType = Literal["Anthropic", "OpenAI", "Google", "DeepSeek", "Mistral", "OpenAICompatible", "Scripted"]
Url = Annotated[str, StringConstraints(pattern=r"^https?://[A-Za-z0-9._\[\]:-]+(/[A-Za-z0-9._~/-]*)?$", max_length=512)]


class Price(Spec):
    """Price per million tokens, decimal text in the tenant's currency."""

    input: Decimal = Field(description="Per million input tokens.")
    output: Decimal = Field(description="Per million output tokens.")
    cached_input: Decimal | None = Field(
        default=None, description="Per million input tokens read from the provider's cache; default: input."
    )


class ModelSpec(Spec):
    """One model a provider entry allows."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9._:/-]+$")] = Field(
        description="Model name as the provider knows it."
    )
    family: Name | None = Field(default=None, description="Model family, for names the built-in table does not know.")
    price: Price | None = Field(
        default=None, description="Price per million tokens. No price is invented: without it, cost is not shown."
    )


class ProviderSpec(Spec):
    """A model vendor, gateway or server that the tenant's agents may call. What is not listed cannot be called."""

    name: Name = Field(description="Name by which Agents refer to this provider.")
    type: ProviderType = Field(description="Wire format and vendor.")
    api_key_secret_ref: SecretKeyRef | None = Field(
        default=None,
        description="Key of a Secret in the tenant's namespace; mounted in the broker alone. Required by the vendors' own types, "
        "optional for OpenAICompatible, not used by Scripted.",
    )
    models: tuple[ModelSpec, ...] = Field(
        default=(),
        max_length=64,
        description="Models that may be called. Empty: any model of this provider.",
        json_schema_extra=NAMED_LIST,
    )
    region: Name | None = Field(default=None, description="Where content goes; checked against residency before each call.")
    base_url: Url | None = Field(
        default=None,
        alias="baseURL",
        description="A gateway, a regional endpoint or a self-hosted server. A server inside the cluster is named by its "
        "Service, name.namespace.svc, on a port that equals the target port; one in a private network outside it by its address.",
    )
    ca_bundle: ConfigMapKeyRef | None = Field(
        default=None,
        description="CA certificates (PEM) of a self-hosted server, from a ConfigMap in the tenant's namespace.",
    )
    concurrency: int = Field(default=8, ge=1, le=256, description="Calls in flight at most; more wait, in order.")
    timeout: Annotated[str, StringConstraints(pattern=r"^[0-9]+[sm]$", max_length=8)] = Field(
        default="120s", description="Longest time one attempt may take."
    )
    script: ConfigMapKeyRef | None = Field(
        default=None, description="Answers of a Scripted provider (YAML), from a ConfigMap in the tenant's namespace."
    )

    rules = (
        Rule(
            "self.type in ['Scripted', 'OpenAICompatible'] || has(self.apiKeySecretRef)",
            "this provider needs a key: set apiKeySecretRef: {name, key} to a Secret in the tenant's namespace",
            lambda p: p.type in ("Scripted", "OpenAICompatible") or p.api_key_secret_ref is not None,
            ".apiKeySecretRef",
        ),
        Rule(
            "self.type != 'Scripted' || !has(self.apiKeySecretRef)",
            "a Scripted provider calls nobody and takes no key: remove apiKeySecretRef",
            lambda p: p.type != "Scripted" or p.api_key_secret_ref is None,
            ".apiKeySecretRef",
        ),
        Rule(
            "(self.type == 'Scripted') == has(self.script)",
            "type Scripted needs script: {name, key} (a ConfigMap with its answers), and no other type takes one",
            lambda p: (p.type == "Scripted") == (p.script is not None),
            ".script",
        ),
        Rule(
            "self.type != 'OpenAICompatible' || has(self.baseURL)",
            "type OpenAICompatible needs baseURL, the address of the server, such as https://vllm.models.svc:8443/v1",
            lambda p: p.type != "OpenAICompatible" or p.base_url is not None,
            ".baseURL",
        ),
        unique("models", lambda m: m.name, "models has the same name twice; name each model once"),
    )


class Residency(Spec):
    regions: tuple[Name, ...] = Field(
        min_length=1,
        max_length=32,
        json_schema_extra={"x-kubernetes-list-type": "set"},
        description="Regions to which content may go; a provider elsewhere, or without a region, is refused.",
    )


class Quota(Spec):
    agents: int = Field(default=20, ge=0, le=1000, description="Agents at most.")
    sessions: int = Field(default=100, ge=0, le=10000, description="Session objects at most.")
    cpu: Quantity = Field(default="32", description="Sum of CPU limits of agents and sandboxes; Folkmoot's own pods come on top.")
    memory: Quantity = Field(default="32Gi", description="Sum of their memory limits; Folkmoot's own pods come on top.")
    storage: Quantity = Field(default="50Gi", description="Sum of requested storage; Folkmoot's own volumes come on top.")


class Isolation(Spec):
    runtime_class_name: ObjectName | None = Field(
        default=None,
        description="RuntimeClass of sandbox pods (gVisor, Kata). Default: plain pods under Pod Security restricted.",
    )


class CoreStorage(Spec):
    size: Quantity = Field(default="5Gi", description="Volume of the core pod: ledger, sessions, bus.")
    class_name: ObjectName | None = Field(default=None, description="StorageClass; default: the cluster's.")

    rules = (
        immutable(
            "size",
            "the volume claim is made once; to grow it, resize PersistentVolumeClaim data-core-0 in the tenant's namespace",
        ),
        immutable("className", "the volume claim is made once; export the evidence and make a new Tenant to move it"),
    )


class KeyEncryption(Spec):
    """Where the key comes from that the core's own keys rest under."""

    secret_ref: SecretKeyRef = Field(
        description="Key of a Secret in the tenant's namespace with 32 random bytes, or 64 hex digits; mounted in the core alone."
    )


class Core(Spec):
    storage: CoreStorage = Field(default=CoreStorage(), description="The core's volume.")
    resources: Resources | None = Field(default=None, description="Requests and limits of the conductor container.")
    key_encryption: KeyEncryption | None = Field(
        default=None,
        description="Wraps the log's signing keys and the keys of sealed content. Default: they rest on the core's volume as they are.",
    )


_HAS_KEY = "(has({0}.core) && has({0}.core.keyEncryption))"
_SAME_KEY = (  # a rule on Core would not be asked where either has no core
    f"{_HAS_KEY.format('self')} == {_HAS_KEY.format('oldSelf')} && "
    f"(!{_HAS_KEY.format('self')} || self.core.keyEncryption == oldSelf.core.keyEncryption)"
)


class TenantSpec(Spec):
    """What a customer or team is given."""

    cause: Cause = Field(
        description="Purpose in the first person, 1 to 4096 characters. Immutable: another cause is another identity."
    )
    organization: Name | None = Field(
        default=None,
        description="Organization in the identity path federation/organization/tenant. Default: the tenant's name.",
    )
    owners: tuple[Subject, ...] = Field(
        default=(),
        max_length=32,
        description="May write Agents, Councils, GatePolicies and Sessions in the tenant's namespace.",
    )
    viewers: tuple[Subject, ...] = Field(default=(), max_length=32, description="May read them.")
    auditors: tuple[Subject, ...] = Field(default=(), max_length=32, description="May read evidence and nothing else.")
    providers: tuple[ProviderSpec, ...] = Field(
        default=(), max_length=32, description="Model providers that may be called.", json_schema_extra=NAMED_LIST
    )
    residency: Residency | None = Field(default=None, description="Where content may go.")
    currency: Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")] = Field(
        default="USD", description="Currency (ISO 4217) of prices and costs."
    )
    quota: Quota = Field(default=Quota(), description="Limits of the namespace.")
    isolation: Isolation = Field(default=Isolation(), description="How sandboxes are isolated.")
    core: Core = Field(default=Core(), description="Size of the tenant's core.")
    audit: Audit = Field(default=Audit(), description="How the tenant's log is kept, cosigned and timestamped.")
    deletion_policy: Literal["Retain", "Delete"] = Field(
        default="Retain",
        description="Retain: seal, export, keep namespace and volume scaled to zero. Delete: seal, export, remove.",
    )
    suspend: bool = Field(default=False, description="Pause: no new session is opened and agents are scaled to zero.")

    rules = (
        immutable("cause", "another cause is another identity; create a Tenant with another name"),
        plain_cause(),
        immutable("organization", "it is part of the identity; create a Tenant with another name"),
        Rule(
            _SAME_KEY,
            "core.keyEncryption is immutable: what rests under one key does not open with another; put the same key into the Secret that "
            "it names, or export the evidence and make a new Tenant",
            path=".core.keyEncryption",
        ),
        unique("providers", lambda p: p.name, "providers has the same name twice; name each provider once"),
        Rule(
            "!has(self.residency) || !has(self.providers) || self.providers.all(p, has(p.region))",
            "with spec.residency every provider needs region: content may not go where nobody knows it is",
            lambda t: t.residency is None or all(p.region for p in t.providers),
            ".providers",
        ),
    )
