"""A tenant's evidence: fetched with the CLI, checked with the CLI, and checked again by a program that is not ours."""

from __future__ import annotations

import base64
import shutil
import tarfile
from dataclasses import dataclass
from pathlib import Path

from folkmoot_core import names

from .cluster import Cluster
from .install import SYSTEM
from .shell import Failed, attempt, run

_WITNESS_KEY = """
from pathlib import Path
from folkmoot_core.ledger.cosignature import Ed25519Cosigner
place = Path("/data/witness")
seeds, name = (place / "witness.key").read_bytes(), (place / "witness.name").read_text().strip()
print(Ed25519Cosigner.from_seed(name, seeds[:32]).verifier().vkey())
"""


@dataclass(frozen=True)
class Evidence:
    """The tar, and the log as a static directory."""

    tar: Path
    log: Path
    vkey: Path


def fetch(cluster: Cluster, folkmoot: Path, tenant: str, folder: Path) -> Evidence:
    """Export through the conductor's door, unpack beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{tenant}.tar"
    run([folkmoot, "session", "evidence", "--tenant", tenant, "-o", target], environment=cluster.client_environment)
    return unpack(target)


def unpack(target: Path) -> Evidence:
    """Unpack an exported tar beside it."""
    place = target.with_suffix("")
    shutil.rmtree(place, ignore_errors=True)
    with tarfile.open(target) as archive:
        archive.extractall(place, filter="data")
    checkpoints = sorted(place.rglob("checkpoint"))
    keys = sorted(place.rglob("log.vkey"))
    if not checkpoints or not keys:
        raise Failed(f"{target} holds no checkpoint or no log.vkey")
    return Evidence(target, checkpoints[0].parent, keys[0])


def exported(cluster: Cluster, name: str, folder: Path) -> list[Path]:
    """The tars in the installation's export volume whose names have this in them: sealed logs of tenants that are gone."""
    listing = "import os; print('\\n'.join(sorted(os.listdir('/export'))))"
    there = cluster.kubectl("exec", "-n", SYSTEM, "deploy/folkmoot-operator", "--", "python", "-c", listing).split()
    found = []
    for file in (f for f in there if name in f and not f.startswith(".")):
        reading = f"import base64; print(base64.b64encode(open('/export/{file}', 'rb').read()).decode())"
        text = cluster.kubectl("exec", "-n", SYSTEM, "deploy/folkmoot-operator", "--", "python", "-c", reading)
        (folder / file).write_bytes(base64.b64decode(text))
        found.append(folder / file)
    return found


def witness_key(cluster: Cluster) -> str:
    """The vkey of the installation's witness, from its volume."""
    return cluster.kubectl("exec", f"{names.SA_WITNESS}-0", "-n", SYSTEM, "--", "python", "-c", _WITNESS_KEY).strip()


def verify(folkmoot: Path, evidence: Evidence, key: str = "") -> str:
    """`folkmoot verify` on the tar; raises `Failed` unless it says yes. `key`: the log's, got another way than from the log."""
    done = attempt([folkmoot, "verify", evidence.tar, *(["--key", key] if key else [])])
    if done.returncode != 0:
        raise Failed(f"folkmoot verify says no:\n{done.stdout}{done.stderr}")
    return done.stdout.strip()


def fsck(cluster: Cluster, evidence: Evidence) -> str:
    """Tessera's fsck on the same log; raises `Failed` unless it is content."""
    words = [cluster.tool("fsck"), f"--storage_url=file://{evidence.log}/", f"--public_key={evidence.vkey}", "--ui=false"]
    done = attempt(words, timeout=120)
    said = (done.stdout + done.stderr).strip()
    if done.returncode != 0:
        raise Failed(f"Tessera's fsck says no:\n{said[-2000:]}")
    return said.splitlines()[-1] if said else "OK"
