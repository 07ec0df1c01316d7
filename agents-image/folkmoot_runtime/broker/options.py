"""What the broker reads from its environment beyond `folkmoot_runtime.settings`, once, at start."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from folkmoot_core.errors import Invalid
from folkmoot_runtime.broker.providers.registry import Files


@dataclass(frozen=True)
class Options:
    """The broker's own settings."""

    files: Files
    """FOLKMOOT_KEYS (/etc/folkmoot/keys), FOLKMOOT_PROVIDER_CA (/etc/folkmoot/provider-ca), FOLKMOOT_SCRIPTS
    (/etc/folkmoot/scripts): directories with one directory per provider."""
    deadline: float
    """FOLKMOOT_CALL_DEADLINE_SECONDS: longest time one call may take with queue, attempts and waits. Default 600, which is
    what the vendors' SDKs allow one attempt."""


def from_environment(env: Mapping[str, str] | None = None) -> Options:
    """Read the environment; raises `Invalid` naming the variable that is wrong."""
    env = os.environ if env is None else env
    deadline = env.get("FOLKMOOT_CALL_DEADLINE_SECONDS", "600")
    if not deadline.isdigit() or not 1 <= int(deadline) <= 3600:
        raise Invalid(f"environment variable FOLKMOOT_CALL_DEADLINE_SECONDS is {deadline!r}; expected 1 to 3600")
    files = Files(
        keys=Path(env.get("FOLKMOOT_KEYS", "/etc/folkmoot/keys")),
        authorities=Path(env.get("FOLKMOOT_PROVIDER_CA", "/etc/folkmoot/provider-ca")),
        scripts=Path(env.get("FOLKMOOT_SCRIPTS", "/etc/folkmoot/scripts")),
    )
    return Options(files, float(deadline))
