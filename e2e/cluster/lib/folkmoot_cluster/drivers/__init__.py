"""Three ways to have a Kubernetes, one face. The first that applies is used: a context, kind, embedded."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from ..names import Instance


class Driver(Protocol):
    """What every way can be asked. Errors are ClusterErrors; `NotSupported` where a way cannot."""

    name: str

    def up(self, *, enforcer: bool) -> None: ...

    def down(self) -> None: ...

    def status(self) -> dict[str, Any]: ...

    def kubeconfig(self) -> Path: ...

    def load(self, images: Sequence[str]) -> None: ...

    def enforcer(self, *, on: bool) -> None: ...


def choose(instance: Instance) -> Driver:
    """The driver for this machine and environment."""
    from . import embedded, given, kind  # here: these import the protocol above

    context = os.environ.get("FOLKMOOT_CONTEXT")
    if context:
        return given.Given(instance, context)
    if kind.available():
        return kind.Kind(instance)
    return embedded.Embedded(instance)
