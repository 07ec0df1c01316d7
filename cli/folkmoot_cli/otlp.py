"""OCSF events to an OTLP/HTTP endpoint as JSON log records (opentelemetry-proto, ExportLogsServiceRequest). For `ledger export --otlp`.

Bounded: so many events and bytes in a request, so many attempts, each with a timeout. What the endpoint does not take ends the export with
the index to go on from; nothing is dropped in silence.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx2

from folkmoot_core.errors import FolkmootError, Invalid, Unavailable

MAX_EVENTS = 200  # of a request
MAX_BYTES = 1024 * 1024
ATTEMPTS = 6
FIRST_PAUSE = 0.5  # seconds, doubled up to LONGEST_PAUSE
LONGEST_PAUSE = 10.0
LONGEST_ASKED = 60.0  # of what Retry-After may ask
TIMEOUT = 30.0
RETRIED = frozenset({429, 502, 503, 504})  # opentelemetry-proto, OTLP/HTTP: Retryable Response Codes
SEVERITIES = {1: (9, "INFO"), 3: (13, "WARN"), 4: (17, "ERROR"), 5: (21, "FATAL")}


@dataclass
class Otlp:
    """One endpoint. `sleep` is time's."""

    url: str
    client: httpx2.Client
    sleep: Callable[[float], None] = time.sleep
    _records: list[dict[str, Any]] = field(default_factory=list)
    _bytes: int = 0
    _first: int = -1

    def put(self, index: int, event: dict[str, Any]) -> None:
        """One event more; sent when there are enough."""
        body = json.dumps(event, separators=(",", ":"))
        if self._records and (len(self._records) >= MAX_EVENTS or self._bytes + len(body) > MAX_BYTES):
            self.flush()
        self._first = index if self._first < 0 else self._first
        self._records.append(record(event, body))
        self._bytes += len(body)

    def flush(self) -> None:
        """Send what is there. Raises `Unavailable` or `Invalid` with the entry to go on from."""
        if not self._records:
            return
        pause = FIRST_PAUSE
        for attempt in range(1, ATTEMPTS + 1):
            refusal, asked = self._send()
            if not refusal:
                self._records, self._bytes, self._first = [], 0, -1
                return
            if attempt < ATTEMPTS:
                self.sleep(max(pause, asked))
                pause = min(2 * pause, LONGEST_PAUSE)
        raise Unavailable(f"{self.url} {refusal}, {ATTEMPTS} times; go on with --first {self._first}")

    def _send(self) -> tuple[str, float]:
        try:
            answer = self.client.post(self.url, json=request(self._records), timeout=TIMEOUT)
        except httpx2.HTTPError as error:
            return f"does not answer ({type(error).__name__})", 0.0
        if answer.status_code in RETRIED:
            return f"answered {answer.status_code}", _asked(answer.headers.get("retry-after", ""))
        if answer.status_code >= 300:
            raise Invalid(f"{self.url} answered {answer.status_code} and will again; go on with --first {self._first}")
        _partial(answer, self.url, self._first)
        return "", 0.0


def request(records: list[dict[str, Any]]) -> dict[str, Any]:
    """ExportLogsServiceRequest."""
    resource = {"attributes": [_text("service.name", "folkmoot-ledger")]}
    return {
        "resourceLogs": [
            {"resource": resource, "scopeLogs": [{"scope": {"name": "folkmoot.ledger.ocsf"}, "logRecords": records}]}
        ]
    }


def record(event: dict[str, Any], body: str) -> dict[str, Any]:
    """LogRecord: the event as its body, what one filters by as attributes."""
    number, name = SEVERITIES.get(event["severity_id"], (9, "INFO"))
    return {
        "timeUnixNano": str(event["time"] * 1_000_000), "observedTimeUnixNano": str(event["metadata"]["logged_time"] * 1_000_000),
        "severityNumber": number, "severityText": name, "body": {"stringValue": body},
        "attributes": [
            _text("event.name", event["message"]), _text("ocsf.class_name", event["class_name"]),
            {"key": "ocsf.class_uid", "value": {"intValue": str(event["class_uid"])}},
            _text("ocsf.metadata.uid", event["metadata"]["uid"]),
        ],
    }  # fmt: skip


def _text(key: str, value: str) -> dict[str, Any]:
    return {"key": key, "value": {"stringValue": value}}


def _asked(header: str) -> float:
    return min(float(header), LONGEST_ASKED) if header.isascii() and header.isdecimal() and len(header) < 6 else 0.0


def _partial(answer: httpx2.Response, url: str, first: int) -> None:
    """A 200 may still say that some records were not taken (Partial Success)."""
    try:
        said = answer.json()
        rejected = int((said.get("partialSuccess") or {}).get("rejectedLogRecords") or 0)
    except (ValueError, AttributeError, TypeError):
        return
    if rejected:
        raise FolkmootError(f"{url} rejected {rejected} of the events from entry {first} on; it will again")
