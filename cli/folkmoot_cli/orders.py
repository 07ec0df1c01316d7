"""What `session run` hands over: Session and ConfigMap manifests from a file, or made from the command line.

A directory becomes a tar that is the same bytes for the same files, so that a ConfigMap applied twice does not change.
"""

from __future__ import annotations

import base64
import io
import secrets
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from folkmoot_core import names
from folkmoot_core.errors import Invalid
from folkmoot_core.plan import views
from folkmoot_core.plan.types import Problems

Manifest = dict[str, Any]
MAX_FILE = 4 * 1024 * 1024
MAX_INPUT = 1_000_000  # bytes before base64 that a ConfigMap of 1 MiB takes with its metadata
SKIPPED = frozenset({"__pycache__", ".git", ".pytest_cache", ".mypy_cache", ".ruff_cache", ".venv", "node_modules"})
TAR_KEY = "content.tar"
KINDS = ("Session", "ConfigMap")


def read(path: str) -> list[Manifest]:
    """The Sessions and ConfigMaps of a file, ConfigMaps first; anything else in it is refused rather than passed over."""
    try:
        data = Path("/dev/stdin" if path == "-" else path).read_bytes()
        if len(data) > MAX_FILE:
            raise Invalid(f"{path}: {len(data)} bytes; expected at most {MAX_FILE}")
        documents = [d for d in yaml.safe_load_all(data) if d is not None]
    except OSError as error:
        raise Invalid(f"cannot read {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else path
        raise Invalid(f"{where}: not YAML: {getattr(error, 'problem', None) or 'cannot be decoded'}") from error
    for document in documents:
        kind = document.get("kind") if isinstance(document, dict) else type(document).__name__
        if kind not in KINDS:
            raise Invalid(f"{path}: found {kind}; session run takes Sessions and their ConfigMaps, apply the rest with kubectl")
    if not any(d["kind"] == "Session" for d in documents):
        raise Invalid(f"{path}: holds no Session")
    return sorted(documents, key=lambda d: KINDS[::-1].index(d["kind"]))


def session(name: str, target: str, task: str, inputs: Sequence[str]) -> Manifest:
    """A Session for `Council/shipping` or `Agent/reviewer`."""
    kind, _, wanted = target.partition("/")
    kinds = {"council": "Council", "agent": "Agent"}
    if kind.lower() not in kinds or not wanted:
        raise Invalid(f"--target {target!r}: expected Council/<name> or Agent/<name>")
    kind = kinds[kind.lower()]
    if not task.strip():
        raise Invalid("--task is empty; say what is asked")
    refs = [{"name": n, "configMapRef": {"name": config_map_name(name, n)}} for n in inputs]
    spec = {"target": {"kind": kind, "name": wanted}, "task": task, **({"inputs": refs} if refs else {})}
    made = {"apiVersion": names.API_VERSION, "kind": "Session", "metadata": {"name": name}, "spec": spec}
    parsed = views.parse_session(made)
    if isinstance(parsed, Problems):
        raise Invalid("; ".join(str(item) for item in parsed.items))
    return made


def fresh_name(target: str) -> str:
    """A name nobody else has: the target's with five random characters."""
    stem = target.rpartition("/")[2][: names.MAX_NAME - 6].rstrip("-") or "session"
    return f"{stem}-{secrets.token_hex(3)[:5]}"


def config_map_name(session_name: str, input_name: str) -> str:
    """The ConfigMap that holds one input of a session made on the command line."""
    return f"{session_name}-{input_name}"


def parse_inputs(words: Sequence[str]) -> dict[str, Path]:
    """`name=PATH` pairs; raises `Invalid` for what is neither."""
    found: dict[str, Path] = {}
    for word in words:
        name, equals, path = word.partition("=")
        if not equals or not path:
            raise Invalid(f"--input {word!r}: expected name=PATH")
        names.check_name(name, "--input name")
        if name in found:
            raise Invalid(f"--input {name}: given twice")
        found[name] = Path(path)
    return found


def config_map(name: str, source: Path) -> Manifest:
    """A ConfigMap of one file, or of a directory as a tar."""
    if source.is_dir():
        content = {"binaryData": {TAR_KEY: base64.b64encode(_bounded(tar(source), source)).decode()}}
    else:
        try:
            data = _bounded(source.read_bytes(), source)
        except OSError as error:
            raise Invalid(f"cannot read {source}: {error.strerror}") from error
        try:
            content = {"data": {source.name: data.decode()}}
        except UnicodeDecodeError:
            content = {"binaryData": {source.name: base64.b64encode(data).decode()}}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, **content}


def tar(directory: Path) -> bytes:
    """Regular files below a directory, in name order, without times, owners or caches."""
    out = io.BytesIO()
    files = [p for p in sorted(directory.rglob("*")) if not SKIPPED & set(p.relative_to(directory).parts)]
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for path in files:
            if path.is_symlink() or not path.is_file():
                continue
            entry = tarfile.TarInfo(path.relative_to(directory).as_posix())
            entry.size, entry.mode = path.stat().st_size, 0o755 if path.stat().st_mode & 0o100 else 0o644
            with path.open("rb") as file:
                archive.addfile(entry, file)
    return out.getvalue()


def _bounded(data: bytes, source: Path) -> bytes:
    if len(data) > MAX_INPUT:
        raise Invalid(f"{source}: {len(data)} bytes; an input travels in a ConfigMap, which takes {MAX_INPUT} at most")
    return data
