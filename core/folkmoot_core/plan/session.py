"""What the conductor is handed for one Session: its spec and the content of its ConfigMap inputs. wiring.md §3."""

from __future__ import annotations

import base64
from collections.abc import Collection, Mapping
from typing import Any

from folkmoot_core.document import SessionOrder
from folkmoot_core.plan.types import Problem, Problems
from folkmoot_core.plan.views import SessionView

MAX_INPUTS = 4 * 1024 * 1024  # bytes of all inputs of a session, before base64: what one PUT carries


def order(
    session: SessionView, config_maps: Mapping[str, Mapping[str, Any]], agents: Collection[str], councils: Collection[str]
) -> SessionOrder | Problems:
    """The order for the conductor, or what is missing. `config_maps` are the raw ConfigMaps of the namespace by name (at least
    those in `wanted(session)`); `agents` and `councils` are the names of those that exist."""
    problems = _target(session, agents, councils)
    inputs: dict[str, dict[str, str]] = {}
    size = 0
    for item in session.spec.inputs:
        raw = config_maps.get(item.config_map_ref.name)
        if raw is None:
            where = f"spec.inputs[{item.name}].configMapRef"
            problems.append(
                Problem(
                    where, f"ConfigMap {item.config_map_ref.name} not found in {session.meta.namespace}; create it", "RefNotFound"
                )
            )
            continue
        inputs[item.name], length = _content(raw)
        size += length
    if size > MAX_INPUTS:
        problems.append(
            Problem("spec.inputs", f"inputs have {size} bytes together; at most {MAX_INPUTS} are handed over", "InputTooLarge")
        )
    meta = session.meta
    if problems:
        return Problems("Session", meta.namespace, meta.name, meta.uid, meta.generation, tuple(problems))
    return SessionOrder(uid=meta.uid, name=meta.name, generation=meta.generation, spec=session.spec, inputs=inputs)


def wanted(session: SessionView) -> tuple[str, ...]:
    """Names of the ConfigMaps that `order` needs."""
    return tuple(sorted({item.config_map_ref.name for item in session.spec.inputs}))


def _target(session: SessionView, agents: Collection[str], councils: Collection[str]) -> list[Problem]:
    target = session.spec.target
    if target.name in (agents if target.kind == "Agent" else councils):
        return []
    message = f"{target.kind} {target.name} not found in {session.meta.namespace}; create it or correct the name"
    return [Problem("spec.target", message, "RefNotFound")]


def _content(raw: Mapping[str, Any]) -> tuple[dict[str, str], int]:
    text = {key: str(value).encode() for key, value in (raw.get("data") or {}).items()}
    content = {key: base64.b64encode(value).decode() for key, value in text.items()}
    binary = {key: str(value) for key, value in (raw.get("binaryData") or {}).items()}
    size = sum(len(v) for v in text.values()) + sum(len(v) * 3 // 4 for v in binary.values())
    return {**content, **binary}, size
