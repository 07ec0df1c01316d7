"""Keys of what is kept in the cache: a hash of everything that went in. PURE (the caller reads the files).

A key that forgets an input serves stale binaries; one that takes too much in rebuilds for nothing. Tests of a module
are not inputs of its binary.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence

from .errors import ClusterError


def key(parts: Mapping[str, bytes]) -> str:
    """Twelve hex digits over names and contents, independent of order; lengths keep neighbours apart."""
    digest = hashlib.sha256()
    for name in sorted(parts):
        for value in (name.encode(), parts[name]):
            digest.update(len(value).to_bytes(8, "big"))
            digest.update(value)
    return digest.hexdigest()[:12]


def is_input(name: str) -> bool:
    """Whether a file of a Go module goes into its binary."""
    return name in ("go.mod", "go.sum") or (name.endswith(".go") and not name.endswith("_test.go"))


def module_key(files: Mapping[str, bytes], toolchain: str, flags: Sequence[str]) -> str:
    """Key of the binary of a Go module: its inputs, the toolchain's version and the flags."""
    parts = {f"file {name}": content for name, content in files.items() if is_input(name)}
    return key({**parts, "toolchain": toolchain.encode(), "flags": "\0".join(flags).encode()})


def required_version(go_mod: str, module: str) -> str:
    """The version of a module that a go.mod requires: the one place where it is pinned."""
    found = re.search(rf"^\s*(?:require\s+)?{re.escape(module)}\s+(v\S+)", go_mod, re.MULTILINE)
    if found is None:
        raise ClusterError(f"go.mod requires no {module}")
    return found.group(1)


def version_tuple(text: str) -> tuple[int, ...]:
    """`go1.26.8`, `v1.34.4`, `1.26.0` as numbers that compare."""
    found = re.search(r"\d+(?:\.\d+)*", text)
    if found is None:
        raise ClusterError(f"expected a version, found {text!r}")
    return tuple(int(part) for part in found.group().split("."))
