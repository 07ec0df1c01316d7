"""Objects that every cluster gets before anybody uses it: cluster DNS and the storage class. PURE."""

from typing import Any

from .names import CLUSTER_DOMAIN, STORAGE_CLASS, Instance

Manifest = dict[str, Any]

LABELS = {"k8s-app": "kube-dns"}
PROVISIONER_NONE = "kubernetes.io/no-provisioner"

# No forward plugin: the cluster has no way out, and an unknown name is answered at once.
COREFILE = f""".:53 {{
    errors
    health :8080
    ready :8181
    kubernetes {CLUSTER_DOMAIN} in-addr.arpa ip6.arpa {{
        pods insecure
        ttl 5
    }}
    cache 5
}}
"""


def storage_class(name: str = STORAGE_CLASS, provisioner: str = PROVISIONER_NONE) -> Manifest:
    """The default class; volumes are bound where the first pod that wants them is placed."""
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": name, "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
        "provisioner": provisioner,
        "volumeBindingMode": "WaitForFirstConsumer",
    }


def embedded(instance: Instance, coredns_image: str) -> list[tuple[str, Manifest]]:
    """Path at the API server and object, in the order of application."""
    rbac = "/apis/rbac.authorization.k8s.io/v1"
    system = "/api/v1/namespaces/kube-system"
    return [
        (f"/apis/storage.k8s.io/v1/storageclasses/{STORAGE_CLASS}", storage_class()),
        (f"{rbac}/clusterroles/system:coredns", _dns_role()),
        (f"{rbac}/clusterrolebindings/system:coredns", _dns_binding()),
        (f"{system}/serviceaccounts/coredns", _core("ServiceAccount", "coredns")),
        (f"{system}/configmaps/coredns", {**_core("ConfigMap", "coredns"), "data": {"Corefile": COREFILE}}),
        (f"{system}/services/kube-dns", _dns_service(instance.dns_address)),
        ("/apis/apps/v1/namespaces/kube-system/deployments/coredns", _dns_deployment(coredns_image)),
    ]


def _core(kind: str, name: str) -> Manifest:
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": "kube-system", "labels": LABELS}}


def _dns_role() -> Manifest:
    verbs = ["list", "watch"]
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": "system:coredns"},
        "rules": [
            {"apiGroups": [""], "resources": ["endpoints", "services", "pods", "namespaces"], "verbs": verbs},
            {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": verbs},
        ],
    }


def _dns_binding() -> Manifest:
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": "system:coredns"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:coredns"},
        "subjects": [{"kind": "ServiceAccount", "name": "coredns", "namespace": "kube-system"}],
    }


def _dns_service(address: str) -> Manifest:
    ports = [
        {"name": "dns", "port": 53, "targetPort": "dns", "protocol": "UDP"},
        {"name": "dns-tcp", "port": 53, "targetPort": "dns-tcp", "protocol": "TCP"},
    ]
    return {**_core("Service", "kube-dns"), "spec": {"selector": LABELS, "clusterIP": address, "ports": ports}}


def _dns_deployment(image: str) -> Manifest:
    template = {"metadata": {"labels": LABELS}, "spec": _dns_pod(image)}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "coredns", "namespace": "kube-system", "labels": LABELS},
        "spec": {"replicas": 1, "selector": {"matchLabels": LABELS}, "template": template},
    }


def _dns_pod(image: str) -> Manifest:
    container = {
        "name": "coredns",
        "image": image,
        "args": ["-conf", "/etc/coredns/Corefile"],
        "ports": [
            {"name": "dns", "containerPort": 53, "protocol": "UDP"},
            {"name": "dns-tcp", "containerPort": 53, "protocol": "TCP"},
        ],
        "readinessProbe": {"httpGet": {"path": "/ready", "port": 8181}, "periodSeconds": 1},
        "resources": {"requests": {"cpu": "50m", "memory": "32Mi"}, "limits": {"memory": "170Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
        "volumeMounts": [{"name": "configuration", "mountPath": "/etc/coredns", "readOnly": True}],
    }
    return {
        "serviceAccountName": "coredns",
        "priorityClassName": "system-cluster-critical",
        "dnsPolicy": "Default",
        "securityContext": {"runAsNonRoot": True, "runAsUser": 10001, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
        "volumes": [{"name": "configuration", "configMap": {"name": "coredns"}}],
    }
