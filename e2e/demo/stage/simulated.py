"""The model simulator's counters, through the API server's proxy."""

from __future__ import annotations

import json
from typing import Any

from .cluster import Cluster
from .install import MODELS_NAMESPACE


def counts(cluster: Cluster, namespace: str = MODELS_NAMESPACE) -> dict[str, Any]:
    """What was asked and billed since the last reset."""
    found: dict[str, Any] = json.loads(cluster.kubectl("get", "--raw", _path(namespace, "counts")))
    return found


def reset(cluster: Cluster, namespace: str = MODELS_NAMESPACE) -> None:
    """Forget what was counted."""
    cluster.kubectl("create", "--raw", _path(namespace, "reset"), "-f", "-", text="{}")


def _path(namespace: str, what: str) -> str:
    return f"/api/v1/namespaces/{namespace}/services/models:8080/proxy/_sim/{what}"
