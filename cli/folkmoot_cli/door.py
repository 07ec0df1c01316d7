"""A tenant's conductor as people reach it: its service door, over HTTPS, with a token for exactly this service.

Used by `session` and by the demo. On a cluster the door is a port forwarded by kubectl, with TLS checked against the
installation's CA under the Service's own name; with `--server` it is any URL. It holds no token longer than it lives.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import httpx2
from pydantic import ValidationError

from folkmoot_cli.cluster import Kubectl
from folkmoot_core import names
from folkmoot_core.document import LogReport, SessionOrder, SessionReport
from folkmoot_core.errors import Conflict, FolkmootError, Forbidden, Invalid, LimitReached, Missing, Unauthorized, Unavailable
from folkmoot_core.privacy import Erasure, ErasureRequest, Hold, HoldRequest

READERS = (names.SA_OWNER, names.SA_VIEWER)
AUDITORS = (names.SA_AUDITOR, names.SA_OWNER)
OWNERS = (names.SA_OWNER,)
CONNECT_SECONDS = 15.0
READ_SECONDS = 60.0  # of silence; the stream of events says something more often than that
MAX_ANSWER = 16 * 1024 * 1024
MAX_EVENT = 1024 * 1024
MAX_EVIDENCE = 64 * 1024**3
_ERRORS: dict[int, type[FolkmootError]] = {
    400: Invalid, 401: Unauthorized, 403: Forbidden, 404: Missing, 409: Conflict, 413: LimitReached,
    422: Invalid, 429: LimitReached,
}  # fmt: skip
Event = dict[str, Any]
Shape = TypeVar("Shape", Erasure, Hold, LogReport)


@dataclass
class Door:
    """One conductor. `server_name` is what its certificate must carry when the address is only a way to it."""

    base: str
    client: httpx2.Client
    token: str = field(repr=False)
    server_name: str | None = None

    def sessions(self) -> list[SessionReport]:
        """Every session the conductor still knows."""
        listed = self._json("GET", "/v1/sessions").get("sessions", [])
        return [_report(item) for item in listed]

    def session(self, name: str) -> SessionReport:
        """One session's report."""
        return _report(self._json("GET", f"/v1/sessions/{quote(name, safe='')}"))

    def order(self, order: SessionOrder) -> SessionReport:
        """Hand a session to the conductor without a cluster."""
        return _report(self._json("POST", "/v1/sessions", content=order.model_dump_json(by_alias=True)))

    def events(self, name: str, after: int = 0) -> Iterator[Event]:
        """Events in order, beginning behind number `after`; ends with the session. A broken line raises `Unavailable`, and
        the caller goes on from the last number it saw."""
        path = f"/v1/sessions/{quote(name, safe='')}/events"
        headers = {"Accept": "text/event-stream", **({"Last-Event-ID": str(after)} if after else {})}
        try:
            with self._stream("GET", path, headers) as answer:
                yield from _events(answer.iter_lines())
        except httpx2.HTTPError as error:
            raise Unavailable(f"the stream of events of {name} broke off: {type(error).__name__}") from error

    def evidence(self, target: Path) -> int:
        """Write the tenant's evidence (a tar) to a file; it appears whole or not at all. Returns its size."""
        part, size = target.with_name(target.name + ".part"), 0
        try:
            with self._stream("GET", "/v1/evidence", {}) as answer, part.open("wb") as file:
                for chunk in answer.iter_bytes():
                    size += file.write(chunk)
                    if size > MAX_EVIDENCE:
                        raise LimitReached(f"the evidence is larger than {MAX_EVIDENCE} bytes")
            part.replace(target)
        except httpx2.HTTPError as error:
            raise Unavailable(f"the evidence broke off after {size} bytes: {type(error).__name__}; try again") from error
        except OSError as error:
            raise Invalid(f"cannot write {target}: {error.strerror or error}") from error
        finally:
            part.unlink(missing_ok=True)
        return size

    def log(self) -> LogReport:
        """How the log stands."""
        return _shape(LogReport, self._json("GET", "/v1/log"))

    def rotate(self) -> LogReport:
        """Exchange the log's keys; how it stands then."""
        return _shape(LogReport, self._json("POST", "/v1/log/rotate"))

    def anchor(self) -> LogReport:
        """Have the log timestamped; how it stands then."""
        return _shape(LogReport, self._json("POST", "/v1/log/anchor"))

    def erase(self, request: ErasureRequest) -> Erasure:
        """Have a subject's or a session's content erased; how far it is."""
        return _shape(Erasure, self._json("POST", "/v1/erasures", content=request.model_dump_json(exclude_none=True)))

    def hold(self, request: HoldRequest) -> Hold:
        """Place a legal hold."""
        return _shape(Hold, self._json("POST", "/v1/holds", content=request.model_dump_json(exclude_none=True)))

    def release(self, hold: str) -> Hold:
        """Release a legal hold."""
        return _shape(Hold, self._json("DELETE", f"/v1/holds/{quote(hold, safe='')}"))

    def holds(self) -> list[Hold]:
        """All legal holds, the newest first."""
        return [_shape(Hold, item) for item in self._json("GET", "/v1/holds").get("holds", [])]

    def _json(self, method: str, path: str, content: str | None = None) -> dict[str, Any]:
        try:
            answer = self.client.send(self._request(method, path, {}, content))
        except httpx2.HTTPError as error:
            raise Unavailable(f"the conductor at {self.base} does not answer: {type(error).__name__}: {error}") from error
        _refuse(answer)
        if len(answer.content) > MAX_ANSWER:
            raise Unavailable(f"the conductor's answer has more than {MAX_ANSWER} bytes")
        try:
            found = answer.json()
        except ValueError as error:
            raise Unavailable(f"{self.base} answered something that is not JSON; is it a conductor?") from error
        if not isinstance(found, dict):
            raise Unavailable(f"{self.base} answered no object; is it a conductor?")
        return found

    @contextmanager
    def _stream(self, method: str, path: str, headers: dict[str, str]) -> Iterator[httpx2.Response]:
        answer = self.client.send(self._request(method, path, headers, None), stream=True)
        try:
            if answer.status_code >= 400:
                answer.read()
                _refuse(answer)
            yield answer
        finally:
            answer.close()

    def _request(self, method: str, path: str, headers: dict[str, str], content: str | None) -> httpx2.Request:
        bearer = {"Authorization": f"Bearer {self.token}", **headers}
        if content is not None:
            bearer["Content-Type"] = "application/json"
        extensions = {"sni_hostname": self.server_name} if self.server_name else {}
        return self.client.build_request(method, self.base + path, headers=bearer, content=content, extensions=extensions)


@contextmanager
def through_kubectl(kubectl: Kubectl, namespace: str, accounts: tuple[str, ...] = READERS) -> Iterator[Door]:
    """The door of the tenant of a namespace, by port-forward."""
    bundle = kubectl.get("configmap", names.TRUST_CONFIGMAP, namespace).get("data", {}).get("ca.crt", "")
    if not bundle:
        raise Unavailable(f"ConfigMap {names.TRUST_CONFIGMAP} in {namespace} holds no ca.crt yet; is the Tenant Ready?")
    token = kubectl.token(namespace, accounts, names.AUDIENCE_CONDUCTOR)
    with kubectl.forward(namespace, f"{names.CORE}-0", names.PORT_CONDUCTOR) as port, _client(bundle) as client:
        yield Door(f"https://127.0.0.1:{port}", client, token, server_name=f"{names.CORE}.{namespace}.svc")


@contextmanager
def direct(server: str, ca: str, token_file: str) -> Iterator[Door]:
    """A conductor by its URL, as `folkmoot dev` prints it."""
    try:
        bundle, token = Path(ca).read_text(), Path(token_file).read_text().strip()
    except OSError as error:
        raise Invalid(f"cannot read {error.filename}: {error.strerror}; --ca and --token-file name files") from error
    with _client(bundle) as client:
        yield Door(server.rstrip("/"), client, token)


def _client(bundle: str) -> httpx2.Client:
    try:
        context = ssl.create_default_context(cadata=bundle)
    except ssl.SSLError as error:
        raise Invalid("the CA bundle is not PEM certificates") from error
    # Proxies of the environment would be asked to reach our own loopback.
    return httpx2.Client(verify=context, timeout=httpx2.Timeout(READ_SECONDS, connect=CONNECT_SECONDS), trust_env=False)


def _refuse(answer: httpx2.Response) -> None:
    if answer.status_code < 400:
        return
    try:
        detail = str(answer.json().get("detail", ""))[:1000]
    except (ValueError, AttributeError):
        detail = ""
    kind = _ERRORS.get(answer.status_code, Unavailable)
    raise kind(detail or f"the conductor answered {answer.status_code}")


def _shape(model: type[Shape], raw: Any) -> Shape:
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        raise Unavailable("the conductor's answer does not fit this CLI; is one of them older than the other?") from error


def _report(raw: Any) -> SessionReport:
    try:
        return SessionReport.model_validate(raw)
    except ValidationError as error:
        raise Unavailable("the conductor's report does not fit this CLI; is one of them older than the other?") from error


def _events(lines: Iterator[str]) -> Iterator[Event]:
    """Server-sent events whose data is a JSON object; comments are heartbeats."""
    data: list[str] = []
    for line in lines:
        if line.startswith("data:"):
            data.append(line[5:].removeprefix(" "))
            if sum(map(len, data)) > MAX_EVENT:
                raise Unavailable(f"an event is larger than {MAX_EVENT} bytes")
        elif not line and data:
            yield _event("\n".join(data))
            data = []


def _event(text: str) -> Event:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise Unavailable("the stream of events holds something that is not JSON") from error
    if not isinstance(found, dict) or not isinstance(found.get("n"), int):
        raise Unavailable("the stream of events holds something that is not a session's event")
    return found
