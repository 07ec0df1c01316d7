"""The same story where no cluster can be had: `folkmoot dev` on this machine, saying what could not be shown."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from . import evidence, tenants
from .shell import ROOT, Failed, say, show, step, title
from .story import ACME, FOLKMOOT, OUT
from .tenants import DEMO

NOT_SHOWN = (
    "pods and namespaces: the processes run as your user on the loopback",
    "globex refused by the network: there are no NetworkPolicies between processes of one machine",
    "drift repaired, admission, RBAC: they need an API server",
    "Tessera's fsck on the log: it is built with Go, beside the cluster",
)


def play(why: str) -> int:
    """Play with the simulator as a process; exit code of `folkmoot dev`."""
    title("No cluster here")
    say(f"  {why}\n  The same manifests run as processes of this machine. What cannot be shown that way:")
    for line in NOT_SHOWN:
        say(f"  - {line}")
    say("  Needed for it: root on Linux (then everything else is installed), or FOLKMOOT_CONTEXT=<a context of yours>, or kind.")
    with tempfile.TemporaryDirectory() as folder, _simulator() as models:
        manifests = Path(folder)
        for file in ("manifests.yaml", "sessions.yaml"):
            shutil.copy(DEMO / file, manifests / file)
        (manifests / "program.yaml").write_text(json.dumps(tenants.program_config_map(ACME)))
        title("Two tenants, two sessions")
        OUT.mkdir(exist_ok=True)
        code = show([FOLKMOOT, "dev", manifests, "--models", models, "--export", OUT])
    if code != 0:
        raise Failed(f"folkmoot dev ended with {code}")
    title("Evidence")
    with step("folkmoot verify, offline"):
        said = evidence.verify(FOLKMOOT, evidence.unpack(OUT / "acme.tar"))
    for line in said.splitlines():
        say(f"  folkmoot verify: {line}")
    return 0


@contextmanager
def _simulator() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = [
        sys.executable,
        "-m",
        "simulator",
        "--scenario",
        str(DEMO / "scenario.yaml"),
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    process = subprocess.Popen(words, cwd=ROOT / "e2e/simulator", stdout=subprocess.DEVNULL, env={**os.environ})
    try:
        _wait(f"http://127.0.0.1:{port}/healthz", process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(timeout=10)


def _wait(url: str, process: subprocess.Popen[bytes]) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for _ in range(100):
        try:
            opener.open(url, timeout=1).close()
            return
        except OSError:
            if process.poll() is not None:
                raise Failed(f"the model simulator ended with {process.returncode}") from None
            time.sleep(0.1)
    raise Failed("the model simulator does not answer")
