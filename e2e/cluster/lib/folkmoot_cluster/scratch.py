"""Images of one static binary, as a tar that container runtimes import: no engine needed. PURE.

The same input gives the same bytes: times and owners are fixed.
"""

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping


def archive(name: str, binary: bytes, entrypoint: str) -> bytes:
    """A docker-archive with one layer, the file `/<entrypoint>`, which runs as uid 10001."""
    layer = _tar({entrypoint: binary}, mode=0o755)
    configuration = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Entrypoint": [f"/{entrypoint}"], "User": "10001:10001", "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]
    files = {
        "config.json": json.dumps(configuration).encode(),
        "layer.tar": layer,
        "manifest.json": json.dumps(manifest).encode(),
    }
    return _tar(files, mode=0o644)


def _tar(files: Mapping[str, bytes], mode: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            entry.mode = mode
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()
