"""How the API server is reached: the pod's mounted ServiceAccount, or a kubeconfig for runs outside a cluster."""

from __future__ import annotations

import base64
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from folkmoot_core.errors import Invalid
from folkmoot_operator.tls import load_pair

SERVICE_ACCOUNT_DIR: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_REREAD_SECONDS: Final = 60.0  # the kubelet renews the mounted token long before it expires


@dataclass(frozen=True)
class Connection:
    """The API server's address, TLS towards it, and the current bearer token (empty: client certificate alone)."""

    server: str
    tls: ssl.SSLContext
    token: Callable[[], str]


def load(env: Mapping[str, str], directory: Path = SERVICE_ACCOUNT_DIR) -> Connection:
    """KUBECONFIG if it is set, else the pod's ServiceAccount; raises `Invalid` with what is missing."""
    if env.get("KUBECONFIG"):
        return from_kubeconfig(Path(env["KUBECONFIG"].split(":")[0]))
    host, port = env.get("KUBERNETES_SERVICE_HOST", ""), env.get("KUBERNETES_SERVICE_PORT", "443")
    if not host or not (directory / "token").exists():
        raise Invalid("no way to the API server: expected a mounted ServiceAccount, or a path in KUBECONFIG")
    host = f"[{host}]" if ":" in host else host
    tls = ssl.create_default_context(cafile=str(directory / "ca.crt"))
    return Connection(f"https://{host}:{port}", tls, _token_file(directory / "token"))


def from_kubeconfig(path: Path) -> Connection:
    """The current context of a kubeconfig: CA, and a client certificate or a token. Exec plugins are not run."""
    try:
        config = yaml.safe_load(path.read_text())
        context = _named(config["contexts"], config["current-context"])["context"]
        cluster = _named(config["clusters"], context["cluster"])["cluster"]
        user = _named(config["users"], context["user"])["user"]
        server = str(cluster["server"]).rstrip("/")
    except (OSError, KeyError, TypeError, yaml.YAMLError) as error:
        raise Invalid(
            f"kubeconfig {path}: {type(error).__name__}: {error}; expected a current-context with cluster and user"
        ) from error
    authority = _bytes(cluster, "certificate-authority", path.parent)
    tls = ssl.create_default_context(cadata=authority.decode() if authority else None)
    certificate, key = _bytes(user, "client-certificate", path.parent), _bytes(user, "client-key", path.parent)
    if certificate and key:
        load_pair(tls, certificate, key)
    if "tokenFile" in user:
        return Connection(server, tls, _token_file(path.parent / user["tokenFile"]))
    token = str(user.get("token", ""))
    return Connection(server, tls, lambda: token)


def _named(items: list[dict[str, Any]], name: str) -> dict[str, Any]:
    for item in items:
        if item["name"] == name:
            return item
    raise KeyError(name)


def _bytes(section: Mapping[str, Any], key: str, base: Path) -> bytes:
    if f"{key}-data" in section:
        return base64.b64decode(section[f"{key}-data"])
    return (base / section[key]).read_bytes() if key in section else b""


def _token_file(path: Path) -> Callable[[], str]:
    """Reads the token again every minute: the kubelet replaces it."""
    known: list[tuple[float, str]] = []

    def token() -> str:
        now = time.monotonic()
        if not known or now - known[0][0] > _REREAD_SECONDS:
            known[:] = [(now, path.read_text().strip())]
        return known[0][1]

    return token
