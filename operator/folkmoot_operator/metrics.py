"""Metrics under controller-runtime's names, so that dashboards people already have work. Labels: the kind, never an object, but for
the few of a tenant's log, whose alerts must say whose it is (the leader has them)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from folkmoot_core.plan.audit_conditions import moment


def _kind(key: object) -> str:
    return str(getattr(key, "kind", "other"))


@dataclass
class Metrics:
    """All of them, on a registry of their own. It is the queue's observer and the client's meter."""

    registry: CollectorRegistry = field(default_factory=CollectorRegistry)

    def __post_init__(self) -> None:
        r = self.registry
        self._adds = Counter("workqueue_adds", "Keys added.", ["name"], registry=r)
        self._retries = Counter("workqueue_retries", "Keys given a backoff.", ["name"], registry=r)
        self._depth = Gauge("workqueue_depth", "Keys pending.", ["name"], registry=r)
        self._waited = Histogram("workqueue_queue_duration_seconds", "Time a key waits.", ["name"], registry=r)
        self._worked = Histogram("workqueue_work_duration_seconds", "Time a key is worked on.", ["name"], registry=r)
        self._total = Counter("controller_runtime_reconcile", "Reconciles by result.", ["controller", "result"], registry=r)
        self._errors = Counter("controller_runtime_reconcile_errors", "Reconciles that failed.", ["controller"], registry=r)
        self._seconds = Histogram("controller_runtime_reconcile_time_seconds", "Time of a reconcile.", ["controller"], registry=r)
        self._active = Gauge("controller_runtime_active_workers", "Reconciles running.", ["controller"], registry=r)
        self._requests = Counter("rest_client_requests", "Requests to the API server.", ["code", "method"], registry=r)
        self._tenants = Gauge("folkmoot_tenants", "Tenants known.", registry=r)
        self._leader = Gauge("folkmoot_operator_leader", "1 while this replica leads.", registry=r)
        self._reports = Counter("folkmoot_operator_reports", "Reports taken, by answer.", ["reporter", "code"], registry=r)
        self._certificates = Counter("folkmoot_operator_certificates", "Certificate requests, by answer.", ["code"], registry=r)
        self._forked = Gauge(
            "folkmoot_ledger_forked", "1 if the log shows two histories or was rolled back.", ["tenant"], registry=r
        )
        self._frozen = Gauge("folkmoot_ledger_frozen", "1 while the log takes nothing.", ["tenant"], registry=r)
        self._size = Gauge("folkmoot_ledger_size", "Entries under the published checkpoint, minutes old.", ["tenant"], registry=r)
        self._anchored = Gauge(
            "folkmoot_ledger_anchored_timestamp_seconds",
            "Time in the newest verified timestamp, epoch seconds.",
            ["tenant"],
            registry=r,
        )
        self._lag = Gauge("folkmoot_operator_loop_lag_seconds", "How late the event loop last ran a timer.", registry=r)

    # -- queue.Observer -----------------------------------------------------------------------------------------------
    def added(self, key: object) -> None:
        """A key became pending."""
        self._adds.labels(_kind(key)).inc()

    def started(self, key: object, waited: float) -> None:
        """A worker took it."""
        self._waited.labels(_kind(key)).observe(waited)
        self._active.labels(_kind(key)).inc()

    def finished(self, key: object, result: str, seconds: float) -> None:
        """A worker is through with it."""
        kind = _kind(key)
        self._active.labels(kind).dec()
        self._worked.labels(kind).observe(seconds)
        self._seconds.labels(kind).observe(seconds)
        self._total.labels(kind, result).inc()
        if result == "error":
            self._errors.labels(kind).inc()

    def retried(self, key: object) -> None:
        """It got a backoff."""
        self._retries.labels(_kind(key)).inc()

    def depth(self, depth: int) -> None:
        """How many are pending."""
        self._depth.labels("folkmoot").set(depth)

    # -- kube.Meter ---------------------------------------------------------------------------------------------------
    def request(self, method: str, code: str) -> None:
        """One answer of the API server, or `<error>`."""
        self._requests.labels(code, method).inc()

    # -- the rest -----------------------------------------------------------------------------------------------------
    def report(self, reporter: str, code: int) -> None:
        """One report was answered."""
        self._reports.labels(reporter, str(code)).inc()

    def certificate(self, code: int) -> None:
        """One certificate request was answered."""
        self._certificates.labels(str(code)).inc()

    def lag(self, seconds: float) -> None:
        """The event loop's lag."""
        self._lag.set(seconds)

    def leads(self, yes: bool) -> None:
        """Whether this replica leads."""
        self._leader.set(1 if yes else 0)

    def tell_log(self, tenant: str, audit: Mapping[str, Any], *, forked: bool) -> None:
        """How a tenant's log stands, from `status.audit`."""
        self._forked.labels(tenant).set(1 if forked else 0)
        self._frozen.labels(tenant).set(1 if audit.get("state") == "Frozen" else 0)
        if audit.get("size") is not None:
            self._size.labels(tenant).set(audit["size"])
        if (at := moment(str(audit.get("anchored") or ""))) is not None:
            self._anchored.labels(tenant).set(at)

    def forget(self, tenant: str) -> None:
        """A Tenant is gone."""
        for gauge in (self._forked, self._frozen, self._size, self._anchored):
            gauge.remove_by_labels({"tenant": tenant})

    def count_tenants(self, count: Callable[[], int]) -> None:
        """Ask `count` at each scrape."""
        self._tenants.set_function(count)

    def text(self) -> bytes:
        """What a scrape gets."""
        return generate_latest(self.registry)
