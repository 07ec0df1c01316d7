"""kopf as the shell, and nothing more: process, login, watches. Handlers copy what they are told and return; the rest is `app`.

Only `on.login`, `on.startup` and `on.event` are used (a lint test says so): the others keep progress in annotations and finalizers
on people's objects and do not scale (operators.md §0, §2).
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import aiohttp
import kopf

from folkmoot_core import names
from folkmoot_operator import kube
from folkmoot_operator.app import CHILD_SELECTOR, WATCHED, App
from folkmoot_operator.kinds import OWN, Kind
from folkmoot_operator.kube_config import Connection

Ready = Callable[[], Awaitable[None]]


def settings() -> kopf.OperatorSettings:
    """kopf's settings for production: operators.md §2.5 rule 8."""
    s = kopf.OperatorSettings()
    s.posting.enabled = False
    s.scanning.disabled = True
    s.peering.standalone = True
    s.watching.chunk_size = kube.PAGE
    s.watching.inactivity_timeout = 70
    s.watching.server_timeout = 600
    s.networking.request_timeout = 30
    s.networking.error_backoffs = Backoffs()
    s.process.ultimate_exiting_timeout = 20
    # Never written, because no handler needs them; were one added by mistake, at least the names would be ours.
    s.persistence.finalizer = f"{names.GROUP}/shell"
    s.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=names.GROUP)
    s.persistence.diffbase_storage = kopf.AnnotationsDiffBaseStorage(prefix=names.GROUP)
    for kind in WATCHED:
        if kind not in OWN:
            s.watching.label_selectors[kind.group, kind.version, kind.plural] = CHILD_SELECTOR
    return s


class Backoffs:
    """Endless, jittered, up to a minute: a watch is never given up."""

    def __iter__(self) -> Iterator[float]:
        delay = 0.5
        while True:
            yield random.uniform(0.5, delay + 0.5)  # noqa: S311 - spreads load
            delay = min(delay * 2, 60.0)


def registry(app: App, connection: Connection, connector: aiohttp.BaseConnector, ready: Ready) -> kopf.OperatorRegistry:
    """All handlers. `ready` is waited for before the first watch."""
    found = kopf.OperatorRegistry()

    @kopf.on.login(registry=found)
    async def login(**_: Any) -> kopf.AiohttpSession:
        # kopf closes its session when it logs in again; the capped pool below it is ours and stays.
        session = aiohttp.ClientSession(connector=connector, connector_owner=False, middlewares=[kube.middleware(connection)])
        return kopf.AiohttpSession(server=connection.server, aiohttp_session=session, default_namespace="default")

    @kopf.on.startup(registry=found)
    async def startup(**_: Any) -> None:
        await ready()

    for kind in WATCHED:
        watch(found, app, kind)
    return found


def watch(found: kopf.OperatorRegistry, app: App, kind: Kind) -> None:
    """Feed the events of one kind to the app."""

    @kopf.on.event(kind.group, kind.version, kind.plural, registry=found, id=f"watch-{kind.plural}")
    async def seen(event: Any, **_: Any) -> None:
        obj = event["object"]
        app.observe(kind, event["type"], {"apiVersion": kind.api_version, "kind": kind.kind, **obj})
