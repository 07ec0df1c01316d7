"""A broker process for the crash tests: makes one call and kills itself with SIGKILL at the step it is told.

Arguments: directory, base URL of the model simulator, step at which to die ('' for none). Prints the answer as JSON.
The ledger is a file of entries that outlives the process.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from folkmoot_core.calls import CallEnvelope
from folkmoot_core.document import TenantDocument
from folkmoot_core.entries import EntryRequest, Receipt
from folkmoot_core.errors import Conflict
from folkmoot_runtime.broker.attempts import Attempts
from folkmoot_runtime.broker.engine import Engine
from folkmoot_runtime.broker.journal import Journal
from folkmoot_runtime.broker.providers.registry import Files, Registry
from folkmoot_runtime.broker.slots import Slots


class FileLedger:
    """Idempotent by id, like the real one."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def append(self, request: EntryRequest) -> Receipt:
        lines = self._path.read_text().splitlines() if self._path.exists() else []
        for index, line in enumerate(lines):
            known = EntryRequest.model_validate_json(line)
            if known.id == request.id:
                if not request.same_fact(known):
                    raise Conflict(f"entry {request.id}: the id was used for other content")
                return Receipt(index=index, leaf="0" * 64, duplicate=True)
        with self._path.open("a") as file:
            file.write(request.model_dump_json() + "\n")
        return Receipt(index=len(lines), leaf="0" * 64)

    async def aclose(self) -> None: ...


async def main(directory: Path, die_at: str) -> None:
    def step(name: str) -> None:
        if name == die_at:
            os.kill(os.getpid(), signal.SIGKILL)

    document = TenantDocument.model_validate_json((directory / "document.json").read_bytes())
    call = CallEnvelope.model_validate_json((directory / "call.json").read_bytes())
    registry = Registry(Files(directory, directory, directory))
    engine = Engine(
        Journal(directory / "calls.db"), FileLedger(directory / "ledger.jsonl"), Attempts(registry, Slots(), 30.0),
        lambda: document, step=step,
    )  # fmt: skip
    await engine.recover()
    await engine.flush()
    answer = await engine.ask("ana", call)
    await engine.close()
    await registry.aclose()
    sys.stdout.write(answer.model_dump_json())


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
