"""Canonical JSON and digests: the one way in which bytes are made before they are hashed.

The output is RFC 8785 (JCS) for the subset we allow: ASCII keys, no floats, integers below 2^53. Within it, sorting
by code point and by UTF-16 unit agree, and so does Python's own serialiser (ledger.md §4.5). What is outside the
subset is refused, never approximated.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

from folkmoot_core.errors import Invalid

MAX_INTEGER = 2**53 - 1  # RFC 8785 §3.2.2.3: what an IEEE 754 double holds exactly
MAX_DEPTH = 64
_SURROGATE = re.compile("[\ud800-\udfff]")


def canonical_json(value: Any) -> bytes:
    """RFC 8785 bytes of `value`; raises `Invalid` for floats, big integers, non-ASCII keys or nesting over 64."""
    if not _plain(value, 0):
        _check(value, "$", 0)
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def is_plain(value: Any) -> bool:
    """Whether the value is certainly within the subset; no certainty is no error, `canonical_json` decides then."""
    return _plain(value, 0)


def _plain(value: Any, depth: int) -> bool:
    """Makes no messages, for it sees each ledger entry; `_check` decides what this leaves open and says what is wrong."""
    kind = type(value)
    if kind is str:
        return bool(value.isascii()) or _SURROGATE.search(value) is None
    if kind is int:
        return bool(-MAX_INTEGER <= value <= MAX_INTEGER)
    if kind is dict:
        return depth < MAX_DEPTH and all(
            type(key) is str and key.isascii() and _plain(item, depth + 1) for key, item in value.items()
        )  # fmt: skip
    if kind is list or kind is tuple:
        return depth < MAX_DEPTH and all(_plain(item, depth + 1) for item in value)
    return value is None or kind is bool


def _check(value: Any, path: str, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise Invalid(f"{path}: nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, dict):
        for key, item in value.items():
            if not (isinstance(key, str) and key.isascii()):
                raise Invalid(f"{path}: key {key!r} is not ASCII text")
            _check(item, f"{path}.{key}", depth + 1)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _check(item, f"{path}[{index}]", depth + 1)
    else:
        _check_scalar(value, path)


def _check_scalar(value: Any, path: str) -> None:
    if isinstance(value, str):
        if _SURROGATE.search(value):
            raise Invalid(f"{path}: a lone surrogate is not valid Unicode text")
    elif isinstance(value, int):
        if abs(value) > MAX_INTEGER:  # not printed: it may have millions of digits
            raise Invalid(f"{path}: an integer is beyond 2^53-1; write it as a string")
    elif value is not None:
        raise Invalid(f"{path}: {type(value).__name__} has no canonical form; use text, integers, lists and maps")


def sha256_hex(data: bytes) -> str:
    """Lowercase hex SHA-256."""
    return hashlib.sha256(data).hexdigest()


def digest(data: bytes) -> str:
    """`sha256:<hex>`: how content is named in references, artefacts and status."""
    return f"sha256:{sha256_hex(data)}"


def commit(salt: bytes, payload: bytes) -> str:
    """Salted commitment that an entry carries instead of content (ledger.md §4.4). `salt` is 32 fresh random bytes."""
    if len(salt) != 32:
        raise Invalid(f"a commitment's salt has 32 bytes, not {len(salt)}")
    return sha256_hex(b"folkmoot/commit/v1\0" + salt + payload)
