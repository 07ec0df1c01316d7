"""RunProbes: fetch two workspaces, run the deterministic probes over their difference in a thread, store the difference.

The probes are pure (folkmoot_core.probes) but read hostile files: whatever they raise is a recorded failure of the probes,
which is not an approval.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Executor

from folkmoot_core import probes
from folkmoot_core.deliberation import ProbeResult, RunProbes
from folkmoot_core.errors import FolkmootError
from folkmoot_core.probes import Change
from folkmoot_runtime.conductor.blobs import Artefacts

log = logging.getLogger(__name__)
Run = Callable[[dict[str, bytes], dict[str, bytes], tuple[str, ...], tuple[str, ...]], ProbeResult]


class Probing:
    """`executor` None: the loop's own threads."""

    def __init__(self, artefacts: Artefacts, executor: Executor | None = None, run: Run = probes.run) -> None:
        self._artefacts = artefacts
        self._executor = executor
        self._run = run

    async def run(self, session: str, need: RunProbes) -> ProbeResult:
        """Findings, and the digest of the stored unified diff."""
        try:
            base = {path: file.content for path, file in (await self._artefacts.files(need.base)).items()}
            head = {path: file.content for path, file in (await self._artefacts.files(need.workspace)).items()}
        except FolkmootError as error:
            return ProbeResult(vocabulary="", error=error.message)
        try:
            found, diff = await asyncio.get_running_loop().run_in_executor(self._executor, self._look, base, head, need)
        except Exception as error:  # the edge towards hostile files: recorded, and never an approval
            log.exception("probes failed", extra={"session": session, "need": need.id})
            return ProbeResult(vocabulary="", error=f"the probes raised {type(error).__name__}")
        if not diff:
            return found
        stored = await self._artefacts.put(session, diff.encode(errors="replace"))
        return found.model_copy(update={"diff": stored})

    def _look(self, base: dict[str, bytes], head: dict[str, bytes], need: RunProbes) -> tuple[ProbeResult, str]:
        return self._run(base, head, need.shapes_allow, need.shapes_deny), Change(base, head).diff()
