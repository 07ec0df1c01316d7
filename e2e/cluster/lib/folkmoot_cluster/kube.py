"""Just enough of a Kubernetes client to bring a cluster up and look at it: GET, server-side apply, wait."""

import base64
import http.client
import json
import ssl
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from .errors import ClusterError

Condition = Callable[[], bool]
TIMEOUT = 10.0  # seconds per request; the server is on this machine
FIELD_MANAGER = "folkmoot-cluster"


class Api:
    """The API server that a kubeconfig of ours (JSON, everything inside) points to."""

    def __init__(self, kubeconfig: Path) -> None:
        content = json.loads(kubeconfig.read_text())
        cluster, user = content["clusters"][0]["cluster"], content["users"][0]["user"]
        address = urlsplit(cluster["server"])
        self._host, self._port = address.hostname or "127.0.0.1", address.port or 443
        authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
        self._tls = ssl.create_default_context(cadata=authority)
        with tempfile.NamedTemporaryFile() as pair:  # the ssl module reads key and certificate from files alone
            for field in ("client-certificate-data", "client-key-data"):
                pair.write(base64.b64decode(user[field]))
            pair.flush()
            self._tls.load_cert_chain(pair.name)

    def request(self, method: str, path: str, body: object = None, kind: str = "application/json") -> Any:
        """The answer's JSON (or text); ClusterError for a refusal, OSError when nobody answers."""
        connection = http.client.HTTPSConnection(self._host, self._port, timeout=TIMEOUT, context=self._tls)
        try:
            text = None if body is None else json.dumps(body)
            connection.request(method, path, text, {"Content-Type": kind, "Accept": "application/json"})
            response = connection.getresponse()
            content = response.read().decode()
        finally:
            connection.close()
        if response.status >= 400:
            raise ClusterError(f"{method} {path}: {response.status} {content[:400]}")
        return json.loads(content) if content.startswith("{") else content

    def get(self, path: str) -> Any:
        return self.request("GET", path)

    def apply(self, path: str, manifest: object) -> None:
        """Server-side apply: makes it or makes it so."""
        query = f"?fieldManager={FIELD_MANAGER}&force=true"
        self.request("PATCH", path + query, manifest, "application/apply-patch+yaml")

    def ready(self) -> bool:
        return bool(self.get("/readyz") == "ok")

    def node_ready(self, name: str) -> bool:
        conditions = self.get(f"/api/v1/nodes/{name}").get("status", {}).get("conditions", [])
        return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)

    def available(self, namespace: str, deployment: str) -> bool:
        status = self.get(f"/apis/apps/v1/namespaces/{namespace}/deployments/{deployment}").get("status", {})
        return int(status.get("availableReplicas", 0)) > 0

    def volume_count(self) -> int:
        return len(self.get("/api/v1/persistentvolumes")["items"])


def holds(condition: Condition) -> bool:
    """Whether it is true now; a server that does not answer, or not yet, counts as no."""
    try:
        return condition()
    except (ClusterError, OSError, http.client.HTTPException):
        return False


def wait_for(what: str, condition: Condition, seconds: float, alive: Callable[[], str]) -> None:
    """Poll until it holds; ends early when `alive` names something that has died."""
    deadline = time.monotonic() + seconds
    while not holds(condition):
        dead = alive()
        if dead:
            raise ClusterError(f"while waiting for {what}: {dead}")
        if time.monotonic() > deadline:
            raise ClusterError(f"{what}: not within {seconds:.0f} s")
        time.sleep(0.15)
