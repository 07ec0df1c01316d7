"""Reading a directory of manifests: what a cluster would hold. Pure after the files are read."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from folkmoot_core import names
from folkmoot_core.errors import Invalid
from folkmoot_core.plan import views
from folkmoot_core.plan.types import Problems

Raw = dict[str, Any]
MAX_MANIFEST = 4 * 1024 * 1024
_PARSERS = {
    "Tenant": views.parse_tenant,
    "Agent": views.parse_agent,
    "Council": views.parse_council,
    "GatePolicy": views.parse_gate,
    "Session": views.parse_session,
}


@dataclass
class World:
    """All objects of a directory, parsed. `config_maps` and `secrets` are (namespace, name) → key → bytes."""

    tenants: list[views.TenantView] = field(default_factory=list)
    agents: list[views.AgentView] = field(default_factory=list)
    councils: list[views.CouncilView] = field(default_factory=list)
    gates: list[views.GateView] = field(default_factory=list)
    sessions: list[views.SessionView] = field(default_factory=list)
    config_maps: dict[tuple[str, str], dict[str, bytes]] = field(default_factory=dict)
    secrets: dict[tuple[str, str], dict[str, bytes]] = field(default_factory=dict)

    def add(self, raw: Raw, where: str) -> None:
        """Take one object in; raises `Invalid` with file, object and every sentence that helps."""
        kind, meta = str(raw.get("kind")), raw.get("metadata") or {}
        key = (str(meta.get("namespace", "")), str(meta.get("name", "")))
        if kind in {"ConfigMap", "Secret"}:
            (self.config_maps if kind == "ConfigMap" else self.secrets)[key] = _data(raw)
            return
        if kind not in _PARSERS:
            return  # a Namespace or RoleBinding in the same directory is for a cluster, not for us
        if raw.get("apiVersion") != names.API_VERSION:
            raise Invalid(f"{where}: {kind} {key[1]}: apiVersion is {raw.get('apiVersion')!r}; expected {names.API_VERSION}")
        meta.setdefault("uid", _uid(kind, *key))
        meta.setdefault("generation", 1)
        parsed = _PARSERS[kind]({**raw, "metadata": meta})
        if isinstance(parsed, Problems):
            raise Invalid(f"{where}: {kind} {key[1]}: " + "; ".join(str(p) for p in parsed.items))
        self._list(kind).append(parsed)

    def _list(self, kind: str) -> list[Any]:
        lists: dict[str, list[Any]] = {
            "Tenant": self.tenants, "Agent": self.agents, "Council": self.councils, "GatePolicy": self.gates, "Session": self.sessions,
        }  # fmt: skip
        return lists[kind]


def read(paths: Iterable[Path], replace: Mapping[str, str]) -> World:
    """All YAML files of directories and files named, in name order; `replace` fills placeholders before parsing."""
    world = World()
    files = [f for p in paths for f in (sorted(p.rglob("*.yaml")) if p.is_dir() else [p])]
    if not files:
        raise Invalid("no manifests: expected a directory with *.yaml files, or such files")
    for file in files:
        if file.stat().st_size > MAX_MANIFEST:
            raise Invalid(f"{file}: larger than {MAX_MANIFEST} bytes")
        try:
            documents = list(yaml.safe_load_all(_filled(file.read_text(), replace)))
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            raise Invalid(f"{file}:{mark.line + 1 if mark else 1}: not YAML: {getattr(error, 'problem', error)}") from error
        for document in documents:
            if isinstance(document, dict):
                world.add(document, str(file))
    if not world.tenants:
        raise Invalid(f"{len(files)} files hold no Tenant; every other object lives in a tenant's namespace")
    return world


def _filled(text: str, replace: Mapping[str, str]) -> str:
    for placeholder, value in replace.items():
        text = text.replace(placeholder, value)
    return text


def _uid(kind: str, namespace: str, name: str) -> str:
    """Stable from run to run, shaped like the API server's."""
    digest = hashlib.sha256(f"{kind}/{namespace}/{name}".encode()).hexdigest()
    return f"{digest[:8]}-{digest[8:12]}-{digest[12:16]}-{digest[16:20]}-{digest[20:32]}"


def _data(raw: Raw) -> dict[str, bytes]:
    """Text and binary keys of a ConfigMap or Secret as bytes."""
    binary = raw.get("binaryData") or (raw.get("data") if raw.get("kind") == "Secret" else None) or {}
    text = raw.get("stringData") or (raw.get("data") if raw.get("kind") == "ConfigMap" else None) or {}
    found = {key: base64.b64decode(value) for key, value in binary.items()}
    found.update({key: str(value).encode() for key, value in text.items()})
    return found
