"""The demo's program as a ConfigMap: a tar that is the same bytes every time it is made."""

from __future__ import annotations

import base64
import io
import tarfile
from pathlib import Path
from typing import Any


def program_tar(root: Path) -> bytes:
    """Python files below `root`, sorted, without owner or time."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for file in sorted(root.rglob("*.py")):
            data = file.read_bytes()
            entry = tarfile.TarInfo(str(file.relative_to(root)))
            entry.size, entry.mode = len(data), 0o644
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def program_config_map(root: Path, name: str, namespace: str) -> dict[str, Any]:
    """The ConfigMap that a Session's input refers to."""
    return {
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": namespace},
        "binaryData": {"program.tar": base64.b64encode(program_tar(root)).decode()},
    }  # fmt: skip
