"""Every name that two parts must agree on: labels, annotations, finalizers, ports, audiences, stream keys.

Keys are built by functions here and never inline elsewhere. Each constant has a line on meaning and lifetime.
"""

from __future__ import annotations

import re
from typing import Final, NewType

from folkmoot_core.errors import Invalid

TenantName = NewType("TenantName", str)
AgentName = NewType("AgentName", str)
SessionUid = NewType("SessionUid", str)
TaskId = NewType("TaskId", str)
Digest = NewType("Digest", str)  # "sha256:<hex>"

GROUP: Final = "folkmoot.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"
CATEGORY: Final = "folkmoot"
SYSTEM_NAMESPACE: Final = "folkmoot-system"  # the operator's; the chart may install elsewhere, by release namespace

# -- labels: on every child, for its lifetime ---------------------------------------------------------------------
LABEL_MANAGED_BY: Final = "app.kubernetes.io/managed-by"  # value MANAGER: the admission policy guards what carries it
LABEL_NAME: Final = "app.kubernetes.io/name"
LABEL_INSTANCE: Final = "app.kubernetes.io/instance"
LABEL_VERSION: Final = "app.kubernetes.io/version"
LABEL_COMPONENT: Final = "app.kubernetes.io/component"  # core | broker | agent | sandbox | sandbox-checks
LABEL_PART_OF: Final = "app.kubernetes.io/part-of"
LABEL_TENANT: Final = f"{GROUP}/tenant"
LABEL_AGENT: Final = f"{GROUP}/agent"
LABEL_COUNCIL: Final = f"{GROUP}/council"
LABEL_SESSION: Final = f"{GROUP}/session"
LABEL_OWNER_UID: Final = f"{GROUP}/owner-uid"  # uid of the Tenant or Agent that a child belongs to: what prune looks at
LABEL_RETAINED: Final = f"{GROUP}/retained"  # "true" on a namespace kept by deletionPolicy Retain
MANAGER: Final = "folkmoot"

# -- annotations, finalizer, field managers -----------------------------------------------------------------------
ANNOTATION_INTENT: Final = f"{GROUP}/intent"  # hash of the applied intent: cheap "does it differ" before an apply
ANNOTATION_ORIGIN: Final = f"{GROUP}/origin"  # on a retained namespace: the identity a new Tenant must match to adopt it
FINALIZER: Final = f"{GROUP}/seal-and-export"  # on Tenant only
FIELD_MANAGER: Final = "folkmoot-operator"  # spec of children and conditions of our kinds
REPORT_MANAGER: Final = "folkmoot-report"  # phase, result, usage: what the conductor reported

# -- ServiceAccounts, audiences: one audience per service, so no service can pass a caller's token on ---------------
SA_CORE: Final = "core"
SA_BROKER: Final = "broker"
SA_OWNER: Final = "folkmoot-owner"
SA_VIEWER: Final = "folkmoot-viewer"
SA_AUDITOR: Final = "folkmoot-auditor"
SA_WITNESS: Final = "folkmoot-witness"  # of the installation's witness, in the operator's namespace; also its Service's name
SA_TIMESTAMPS: Final = "folkmoot-timestamps"  # likewise, of a timestamp authority of the installation's own
AUDIENCE_OPERATOR: Final = "folkmoot-operator"
AUDIENCE_BUS: Final = "folkmoot-bus"
AUDIENCE_BROKER: Final = "folkmoot-broker"
AUDIENCE_LEDGER: Final = "folkmoot-ledger"
AUDIENCE_CONDUCTOR: Final = "folkmoot-conductor"
AUDIENCE_SANDBOX: Final = "folkmoot-sandbox"

# -- ports ------------------------------------------------------------------------------------------------------
PORT_CONDUCTOR: Final = 8443  # service door: agents, broker, people (token)
PORT_CONDUCTOR_OPERATOR: Final = 8444  # operator door: client certificate of the operator's CA, nothing else
PORT_LEDGER: Final = 8445
PORT_ROUTER: Final = 8446  # the router's door: ACL credentials against a token
PORT_BUS: Final = 6379
PORT_BROKER: Final = 8443
PORT_WITNESS: Final = 8447  # the witness's public door: add-checkpoint and monitoring, no credential
PORT_WITNESS_OPERATOR: Final = 8448  # its operator door: client certificate, as the conductor's
PORT_TIMESTAMPS: Final = 8449  # of the installation's timestamp authority: queries and its certificates, no credential
PORT_SANDBOX: Final = 8080
PORT_OPERATOR: Final = 8443
PORT_METRICS: Final = 8080

# -- uids inside the runtime image: the ledger reads the Unix socket's peer uid to know who appends -------------------
UID_BUS: Final = 10001
UID_ROUTER: Final = 10002
UID_LEDGER: Final = 10003
UID_CONDUCTOR: Final = 10004
UID_BROKER: Final = 10005
UID_AGENT: Final = 10006
UID_SANDBOX: Final = 10007
UID_WITNESS: Final = 10008
UID_TIMESTAMPS: Final = 10009
FS_GROUP: Final = 10000

# -- mount points and sockets, the same in every pod --------------------------------------------------------------
TOKEN_DIR: Final = "/var/run/folkmoot/tokens"  # one projected token per file, named by audience  # noqa: S105
TRUST_DIR: Final = "/etc/folkmoot/trust"  # ConfigMap TRUST_CONFIGMAP: ca.crt, jwks.json, issuer
TRUST_CONFIGMAP: Final = "folkmoot-trust"
LEDGER_SOCKET: Final = "/run/folkmoot/ledger/append.sock"
CORE: Final = "core"  # StatefulSet, Service, ServiceAccount and bus participant of the tenant's core
BROKER: Final = "broker"
SANDBOX_CHECKS: Final = "sandbox-checks"
RESERVED_AGENTS: Final = ("core", "broker", "checks")
RESERVED_TENANTS: Final = ("system",)

MAX_NAME: Final = 40  # children add suffixes
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?")


def check_name(name: str, what: str) -> str:
    """A DNS label of at most 40 characters; braces, colons and globs would reach ACL patterns and stream keys."""
    if not _NAME.fullmatch(name):
        raise Invalid(f"{what} {name!r}: expected 1 to 40 of a-z, 0-9 and '-', starting and ending with a letter or digit")
    return name


def tenant_namespace(tenant: str) -> str:
    """The namespace that the operator makes for a tenant."""
    return f"folkmoot-{tenant}"


def log_memory(tenant_uid: str) -> str:
    """ConfigMap in the operator's namespace: sizes and roots of a Tenant's logs. Stays when the Tenant goes, but under Delete."""
    return f"folkmoot-log-{tenant_uid}"


def agent_workload(agent: str) -> str:
    """Deployment and ServiceAccount of an agent."""
    return f"agent-{agent}"


def sandbox_workload(agent: str) -> str:
    """Deployment and headless Service of an agent's sandbox."""
    return f"sandbox-{agent}"


def agent_of_service_account(service_account: str) -> str | None:
    """The agent behind a ServiceAccount `agent-<name>`, or None for any other account."""
    return service_account.removeprefix("agent-") if service_account.startswith("agent-") else None


def service_names(service: str, namespace: str) -> tuple[str, ...]:
    """The DNS names under which a tenant's Service is reached: exactly what its certificate carries."""
    pod = f"{service}-0.{service}.{namespace}"
    return (service, f"{service}.{namespace}", f"{service}.{namespace}.svc", f"{service}.{namespace}.svc.cluster.local",
            f"{pod}.svc", f"{pod}.svc.cluster.local")  # fmt: skip


# -- bus keys: the braces are literal, so that one tenant's keys share a Cluster slot ----------------------------------
def inbox_key(tenant: str, agent: str) -> str:
    """Stream an agent reads; the router alone writes it."""
    return f"sos:stream:project:{{{tenant}}}:agent:{agent}"


def outbox_key(tenant: str, agent: str) -> str:
    """Stream an agent writes; the router alone reads it."""
    return f"sos:outbox:project:{{{tenant}}}:agent:{agent}"


def alive_key(tenant: str, agent: str) -> str:
    """Set by the agent every 10 s, expires after 30 s."""
    return f"sos:alive:{{{tenant}}}:{agent}"


def ack_due_key(tenant: str) -> str:
    """Sorted set request_id → due time in ms: what the router resends."""
    return f"sos:ackdue:{{{tenant}}}"


def delivered_key(tenant: str) -> str:
    """Hash request_id → envelope of what still waits for its ACK."""
    return f"sos:delivered:{{{tenant}}}"


def seen_key(tenant: str) -> str:
    """Sorted set of request ids already routed (deduplication window)."""
    return f"sos:seen:{{{tenant}}}"


def keys_key(tenant: str) -> str:
    """Hash "participant/pod/fingerprint" → public key and expiry: whose signatures the router takes."""
    return f"sos:keys:{{{tenant}}}"


def record_key(tenant: str) -> str:
    """Stream of what the router still owes the ledger; written in one transaction with what it records."""
    return f"sos:record:{{{tenant}}}"


def bus_user(participant: str) -> str:
    """ACL user of a participant; the prefix keeps an agent of any name apart from the router's own user."""
    return participant if participant == CORE else f"agent-{participant}"


def dead_key(tenant: str) -> str:
    """Stream of what could not be delivered; nothing is dropped silently."""
    return f"sos:dead:{{{tenant}}}"
