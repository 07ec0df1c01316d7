"""The way to a cluster: the user's own kubectl, so that every login, plugin and context they have works here too.

Called by the commands that talk to a tenant. It knows no Folkmoot kinds and parses no kubeconfig; the reasons are in
docs/decisions/0003-cli-goes-through-kubectl.md. What kubectl says goes into the error as it is: it names the object.
"""

from __future__ import annotations

import json
import queue
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

from folkmoot_core import names
from folkmoot_core.errors import FolkmootError, Forbidden, Invalid, Missing, Unauthorized, Unavailable

CALL_SECONDS = 60  # one kubectl call; a login plugin may open a browser first
FORWARD_SECONDS = 20  # until port-forward names its local port
_FORWARDING = re.compile(r"Forwarding from 127\.0\.0\.1:(\d+)")
_REASONS: tuple[tuple[str, type[FolkmootError]], ...] = (
    ("(NotFound)", Missing),
    ("the server doesn't have a resource type", Missing),
    ("(Forbidden)", Forbidden),
    ("(Unauthorized)", Unauthorized),
    ("is invalid:", Invalid),
    ("(BadRequest)", Invalid),
    ("(AlreadyExists)", Invalid),
)


@dataclass(frozen=True)
class Kubectl:
    """One context of the user's. `flags` are what selects it (`--context`, `--kubeconfig`)."""

    program: str
    flags: tuple[str, ...] = ()

    def run(self, *words: str, text: str | None = None) -> str:
        """Standard output of one call; kubectl's complaint becomes the error that its reason calls for."""
        try:
            done = subprocess.run(  # noqa: S603 - the user's own program, with words built here
                [self.program, *self.flags, *words], input=text, capture_output=True, text=True, timeout=CALL_SECONDS, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise Unavailable(f"kubectl {words[0]} did not answer within {CALL_SECONDS} s; is the cluster reachable?") from error
        if done.returncode != 0:
            raise failure(words, done.stderr)
        return done.stdout

    def json(self, *words: str) -> dict[str, Any]:
        """The object or list that `kubectl … -o json` prints."""
        try:
            found = json.loads(self.run(*words, "-o", "json"))
        except ValueError as error:
            raise Unavailable(f"kubectl {' '.join(words[:2])} printed something that is not JSON") from error
        if not isinstance(found, dict):
            raise Unavailable(f"kubectl {' '.join(words[:2])} printed no object")
        return found

    def get(self, kind: str, name: str, namespace: str) -> dict[str, Any]:
        """One object; raises `Missing` with the command that lists what there is."""
        try:
            return self.json("get", kind, name, "-n", namespace)
        except Missing as error:
            if "doesn't have a resource type" in error.message:
                raise Missing(f"this cluster has no {kind}: install Folkmoot's charts, or choose another context") from error
            raise Missing(f"{kind} {name} not found in {namespace}; see: kubectl get {kind} -n {namespace}") from error

    def apply(self, manifest: Mapping[str, Any], *, create: bool = False) -> dict[str, Any]:
        """Create or apply one object and return it as the API server has it."""
        verb = "create" if create else "apply"
        printed = self.run(verb, "-f", "-", "-o", "json", text=json.dumps(manifest))
        found: dict[str, Any] = json.loads(printed)
        return found

    def namespace(self, wanted: str | None) -> str:
        """The namespace asked for, else the context's own."""
        if wanted:
            return wanted
        found = self.run("config", "view", "--minify", "-o", "jsonpath={..namespace}").strip()
        if not found:
            raise Invalid(f"no namespace: say -n {names.tenant_namespace('<tenant>')}, or set one in your kubectl context")
        return found

    def token(self, namespace: str, accounts: Sequence[str], audience: str) -> str:
        """A short-lived token for the first of these ServiceAccounts that the user may ask for."""
        refused: FolkmootError | None = None
        for account in accounts:
            try:
                return self.run("create", "token", account, "-n", namespace, "--audience", audience, "--duration", "1h").strip()
            except (Forbidden, Missing) as error:
                refused = error
        hint = f"an owner of the tenant may create tokens for {accounts[0]} in {namespace}; ask to be listed in the Tenant"
        raise Forbidden(f"{refused.message if refused else 'no account was tried'}; {hint}")

    @contextmanager
    def forward(self, namespace: str, pod: str, port: int) -> Iterator[int]:
        """A local port that leads to a pod's, for as long as the block runs."""
        words = [self.program, *self.flags, "port-forward", "-n", namespace, f"pod/{pod}", f":{port}", "--address", "127.0.0.1"]
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)  # noqa: S603 - as above
        try:
            yield _local_port(process, pod, namespace)
        finally:
            process.terminate()
            try:
                process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            for stream in (process.stdout, process.stderr):
                if stream is not None:
                    stream.close()


def find(context: str | None = None, kubeconfig: str | None = None) -> Kubectl:
    """kubectl from the PATH, with the flags that select the context."""
    program = shutil.which("kubectl")
    if program is None:
        raise Missing("kubectl is not on the PATH; install it, or name a conductor with --server, --ca and --token-file")
    flags = [f"--context={context}"] if context else []
    flags += [f"--kubeconfig={kubeconfig}"] if kubeconfig else []
    return Kubectl(program, tuple(flags))


def failure(words: Sequence[str], stderr: str) -> FolkmootError:
    """What kubectl complained about, as the error that says how to react. Its own prefix is dropped, the sentence is kept."""
    lines = [line for line in stderr.splitlines() if line.strip() and not line.startswith("Warning:")]
    said = (lines[-1] if lines else "it said nothing").removeprefix("error: ")[:1000]
    kind = next((kind for mark, kind in _REASONS if mark in stderr), Unavailable)
    said = re.sub(r"^Error from server \(\w+\): (error when \w+ \"\S+\": )?", "", said)
    if kind is Invalid:
        said = re.sub(r"^The (\S+) \"(\S+)\" is invalid: ", r"\1 \2: ", said)
    return kind(said if kind is not Unavailable else f"kubectl {words[0]}: {said}")


def _local_port(process: subprocess.Popen[str], pod: str, namespace: str) -> int:
    lines: queue.Queue[str] = queue.Queue()
    assert process.stdout is not None  # noqa: S101 - PIPE above
    threading.Thread(target=_read, args=(process.stdout, lines), daemon=True).start()
    try:
        while line := lines.get(timeout=FORWARD_SECONDS):
            if found := _FORWARDING.search(line):
                return int(found.group(1))
    except queue.Empty:
        process.terminate()
        raise Unavailable(
            f"no way to pod {pod} in {namespace} within {FORWARD_SECONDS} s; see: kubectl get pods -n {namespace}"
        ) from None
    process.wait()
    said = process.stderr.read() if process.stderr is not None else ""
    raise failure(("port-forward",), said)


def _read(stream: IO[str], lines: queue.Queue[str]) -> None:
    """Until the end of the stream, which is put as an empty line; goes on reading, or kubectl would block on a full pipe."""
    try:
        for line in stream:
            lines.put(line)
    except ValueError:
        pass  # closed under us at the end of `forward`
    lines.put("")
