"""Does a live object still say what we want it to say? Pure: compared in the cache before any write is made.

An apply is due when the hash of the intent differs from the one we left in an annotation (our wish changed), or when a field
that we own reads differently (somebody else changed it). Fields that we do not set are nobody's business here.
"""

from __future__ import annotations

import hashlib
import json
import re
from decimal import Decimal
from typing import Any, Final

from folkmoot_core import names
from folkmoot_operator.kinds import LIST_KEYS, Obj, annotations_of

# Under these names the API server rewrites quantities to their canonical form ("1000m" to "1").
_QUANTITIES: Final = ("limits", "requests", "hard", "capacity", "default", "defaultRequest", "max", "min", "sizeLimit")
# Plain booleans that the API server leaves out when they are false. Others (automountServiceAccountToken …) it keeps, and there
# an absent false is drift.
_OMITTED_FALSE: Final = (
    "publishNotReadyAddresses", "hostNetwork", "hostPID", "hostIPC", "hostUsers", "stdin", "stdinOnce", "tty", "readOnly", "paused",
)  # fmt: skip
# Atomic for server-side apply: a label that somebody added to a selector is drift, and makes a policy select nothing.
_ATOMIC: Final = ("podSelector", "namespaceSelector", "selector", "matchLabels", "nodeSelector")
_QUANTITY: Final = re.compile(r"([0-9.]+)(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?")
_UNITS: Final[dict[str, Decimal | int]] = {"m": Decimal("0.001"), "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15,
                 "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50}  # fmt: skip


def with_intent(desired: Obj) -> Obj:
    """The object to apply: `desired` with the hash of itself as an annotation."""
    text = json.dumps(desired, sort_keys=True, separators=(",", ":"))
    value = hashlib.sha256(text.encode()).hexdigest()[:32]
    metadata = desired["metadata"]
    annotations = {**(metadata.get("annotations") or {}), names.ANNOTATION_INTENT: value}
    return {**desired, "metadata": {**metadata, "annotations": annotations}}


def difference(intent: Obj, live: Obj) -> str:
    """Path of the first field where `live` does not say what `intent` does, or empty. `intent` comes from `with_intent`."""
    wanted = annotations_of(intent)[names.ANNOTATION_INTENT]
    if annotations_of(live).get(names.ANNOTATION_INTENT) != wanted:
        return f"metadata.annotations.{names.ANNOTATION_INTENT}"
    return _differs(intent, live, "", "", quantity=False)


def _differs(want: Any, have: Any, path: str, field: str, *, quantity: bool) -> str:
    if isinstance(want, dict) and isinstance(have, dict):
        if field in _ATOMIC and set(have) - set(want):
            return f"{path}.{min(set(have) - set(want))}"
        return _maps(want, have, path, quantity=quantity)
    if isinstance(want, list) and isinstance(have, list):
        return _lists(want, have, path, field)
    if quantity and amount(want) is not None and amount(want) == amount(have):
        return ""
    if have is None and (want in ({}, [], "", None) or (want is False and field in _OMITTED_FALSE)):
        return ""
    return "" if want == have else path


def _maps(want: dict[str, Any], have: dict[str, Any], path: str, *, quantity: bool) -> str:
    for name, value in want.items():
        where = f"{path}.{name}" if path else name
        if found := _differs(value, have.get(name), where, name, quantity=quantity or name in _QUANTITIES):
            return found
    return ""


def _lists(want: list[Any], have: list[Any], path: str, field: str) -> str:
    keys = LIST_KEYS.get(field)
    if keys and all(isinstance(item, dict) for item in want):
        for item in want:
            mine = {key: item[key] for key in keys if key in item}
            match = next((h for h in have if isinstance(h, dict) and all(h.get(k) == v for k, v in mine.items())), None)
            if match is None:
                return f"{path}[{','.join(str(v) for v in mine.values())}]"
            if found := _differs(item, match, f"{path}[{','.join(str(v) for v in mine.values())}]", "", quantity=False):
                return found
        return ""
    if field == "finalizers":
        return "" if set(want) <= set(have) else path
    if len(want) != len(have):
        return path
    for index, (mine, theirs) in enumerate(zip(want, have, strict=True)):
        if found := _differs(mine, theirs, f"{path}[{index}]", "", quantity=False):
            return found
    return ""


def amount(value: Any) -> Decimal | None:
    """A Kubernetes quantity as a number, or None."""
    match = _QUANTITY.fullmatch(str(value)) if isinstance(value, str | int) and not isinstance(value, bool) else None
    if match is None or match[1].count(".") > 1 or match[1] == ".":
        return None
    return Decimal(match[1]) * Decimal(_UNITS[match[2]] if match[2] else 1)
