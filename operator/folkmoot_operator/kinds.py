"""The kinds of Kubernetes objects that the operator reads, writes or watches, and how an object is named.

Everybody here speaks of objects as plain maps, as the API server sends them, and of a `Kind` for their place in the API.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from folkmoot_core import names
from folkmoot_core.errors import Invalid

Obj = dict[str, Any]
_SEGMENT = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.:_-]{0,251}[A-Za-z0-9])?")


@dataclass(frozen=True)
class Kind:
    """A kind and its path in the API."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """`apiVersion` of its objects."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """URL path of the collection, of one namespace's, of one object or of its subresource. Raises `Invalid` for a name that
        would lead elsewhere: names also come from reports, and a URL with `..` or `?` asks the API server something else."""
        for part in (namespace, name):
            if part and not _SEGMENT.fullmatch(part):
                raise Invalid(f"{self.kind}: {part[:100]!r} is no name of an object")
        parts = ["apis", self.group, self.version] if self.group else ["api", self.version]
        if self.namespaced and namespace:
            parts += ["namespaces", namespace]
        parts += [self.plural, *[part for part in (name, subresource) if part]]
        return "/" + "/".join(parts)


@dataclass(frozen=True, order=True)
class Key:
    """Namespace (empty for cluster-scoped objects) and name within one kind."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


def _own(plural: str, kind: str, *, namespaced: bool = True) -> Kind:
    return Kind(names.GROUP, names.VERSION, plural, kind, namespaced)


TENANT: Final = _own("tenants", "Tenant", namespaced=False)
AGENT: Final = _own("agents", "Agent")
COUNCIL: Final = _own("councils", "Council")
GATE_POLICY: Final = _own("gatepolicies", "GatePolicy")
SESSION: Final = _own("sessions", "Session")
OWN: Final = (TENANT, AGENT, COUNCIL, GATE_POLICY, SESSION)

NAMESPACE: Final = Kind("", "v1", "namespaces", "Namespace", namespaced=False)
SERVICE_ACCOUNT: Final = Kind("", "v1", "serviceaccounts", "ServiceAccount")
SERVICE: Final = Kind("", "v1", "services", "Service")
CONFIG_MAP: Final = Kind("", "v1", "configmaps", "ConfigMap")
RESOURCE_QUOTA: Final = Kind("", "v1", "resourcequotas", "ResourceQuota")
LIMIT_RANGE: Final = Kind("", "v1", "limitranges", "LimitRange")
STATEFUL_SET: Final = Kind("apps", "v1", "statefulsets", "StatefulSet")
DEPLOYMENT: Final = Kind("apps", "v1", "deployments", "Deployment")
NETWORK_POLICY: Final = Kind("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy")
ROLE_BINDING: Final = Kind("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding")
CHILDREN: Final = (
    NAMESPACE, SERVICE_ACCOUNT, ROLE_BINDING, RESOURCE_QUOTA, LIMIT_RANGE, NETWORK_POLICY, CONFIG_MAP, SERVICE, STATEFUL_SET,
    DEPLOYMENT,
)  # fmt: skip

SECRET: Final = Kind("", "v1", "secrets", "Secret")  # the operator's own CA, by name, in its own namespace, alone
LEASE: Final = Kind("coordination.k8s.io", "v1", "leases", "Lease")
EVENT: Final = Kind("events.k8s.io", "v1", "events", "Event")
POD: Final = Kind("", "v1", "pods", "Pod")  # never read by the operator; here for tests on a cluster

# Associative lists by field name, as the built-in kinds and our CRDs declare them (x-kubernetes-list-map-keys).
LIST_KEYS: Final[dict[str, tuple[str, ...]]] = {
    "conditions": ("type",), "containers": ("name",), "initContainers": ("name",), "volumes": ("name",), "env": ("name",),
    "ownerReferences": ("uid",), "volumeMounts": ("mountPath",), "imagePullSecrets": ("name",), "providers": ("name",), "reporters": ("name",),
    "ports": ("containerPort", "port", "protocol"),
}  # fmt: skip

_BY_NAME: Final = {(k.api_version, k.kind): k for k in (*OWN, *CHILDREN, SECRET, LEASE, EVENT, POD)}


def kind_of(obj: Mapping[str, Any]) -> Kind:
    """The kind of an object that carries `apiVersion` and `kind`; raises `Invalid` for one we do not know."""
    name = (str(obj.get("apiVersion", "")), str(obj.get("kind", "")))
    try:
        return _BY_NAME[name]
    except KeyError:
        raise Invalid(f"{name[0]} {name[1]}: not a kind that the operator handles; expected one of kinds.py") from None


def key_of(obj: Mapping[str, Any]) -> Key:
    """Namespace and name of an object."""
    metadata = obj["metadata"]
    return Key(metadata.get("namespace") or "", metadata["name"])


def labels_of(obj: Mapping[str, Any]) -> Mapping[str, str]:
    """Labels of an object, never None."""
    return obj["metadata"].get("labels") or {}


def annotations_of(obj: Mapping[str, Any]) -> Mapping[str, str]:
    """Annotations of an object, never None."""
    return obj["metadata"].get("annotations") or {}


def uid_of(obj: Mapping[str, Any]) -> str:
    """The uid that the API server gave, or empty for one that is not stored yet."""
    return str(obj["metadata"].get("uid", ""))
