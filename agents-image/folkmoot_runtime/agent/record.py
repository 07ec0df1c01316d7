"""What an agent puts on record: that its key is bound to its identity, and each tool call before and after it ran.

*No receipt, no effect*: a caller goes on only after these return. Entries carry salted commitments, never content; the opening
(salt and content) is kept as an artefact that the entry names by digest.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from folkmoot_core.agent_loop import ToolRun
from folkmoot_core.canonical import commit, sha256_hex
from folkmoot_core.document import AgentEntry
from folkmoot_core.entries import Actor, EntryRequest, EntryType, Payload, new_entry
from folkmoot_core.errors import Conflict
from folkmoot_core.messages import Task
from folkmoot_core.workspace import ToolAnswer
from folkmoot_runtime.agent.peers import patiently
from folkmoot_runtime.ledger.client import Appender

Keep = Callable[[str, bytes], Awaitable[str]]  # session, content


@dataclass(frozen=True)
class Standing:
    """An agent's entry and the digest of the tenant document that it stands in: what it does, it does under that."""

    agent: AgentEntry
    config: str


@dataclass(frozen=True)
class Recorder:
    """Appends as this agent. `keep` stores an opening and returns its digest; `clock` gives epoch seconds; `salt` 32 bytes."""

    ledger: Appender
    keep: Keep
    clock: Callable[[], float]
    salt: Callable[[], bytes] = lambda: secrets.token_bytes(32)

    async def bound(self, standing: Standing, fingerprint: str) -> None:
        """`identity.bound`: this process's key speaks for this identity with this commitment."""
        agent, config = standing.agent, standing.config
        data = {
            "key": fingerprint, "gen_ai.agent.name": agent.name, "gen_ai.provider.name": agent.spec.model.provider,
            "gen_ai.request.model": agent.spec.model.name,
        }  # fmt: skip
        # With the configuration in its name: the same key bound again under another one is another fact, not a conflict.
        fact = sha256_hex(f"{fingerprint}\n{agent.identity.commitment}\n{config}".encode())
        identity = f"identity/{agent.name}/{fact[:48]}"
        await self._append(new_entry("identity.bound", actor_of(agent), id=identity, data=data, config=config, now=self.clock()))

    async def intent(self, task: Task, standing: Standing, run: ToolRun) -> None:
        """`tool.call.intent`, before the call."""
        content = json.dumps(run.call.arguments, sort_keys=True, separators=(",", ":")).encode()
        await self._committed("tool.call.intent", task, standing, run, ({}, content, "application/json"))

    async def outcome(self, task: Task, standing: Standing, run: ToolRun, answer: ToolAnswer) -> None:
        """`tool.call.outcome`, after the call and after its workspace is stored."""
        data = {
            "state": "done", "exit_code": answer.exit_code, "timed_out": answer.timed_out, "error": answer.error,
            "files": len(answer.workspace.files),
        }  # fmt: skip
        await self._committed("tool.call.outcome", task, standing, run, (data, answer.text.encode(), "text/plain"))

    async def closed(self, task: Task, standing: Standing, run: ToolRun, state: str) -> None:
        """`tool.call.outcome` of a call without a result that counts: refused, undone, or interrupted, with an effect that
        nobody knows. It carries no salt, so saying it again adds nothing."""
        entry = new_entry(
            "tool.call.outcome", actor_of(standing.agent), id=f"{_entry_id(run)}/{state}",
            data={**_names(task, run), "state": state}, session=task.session, config=standing.config, now=self.clock(),
        )  # fmt: skip
        try:
            await self._append(entry)
        except Conflict as error:
            if error.reason != "IdReused":  # a process before this one said it, under the configuration of that time
                raise

    async def _committed(
        self, kind: EntryType, task: Task, standing: Standing, run: ToolRun, what: tuple[dict[str, Any], bytes, str]
    ) -> None:
        data, content, media = what
        salt = self.salt()
        opening = json.dumps({"salt": salt.hex(), "media": media, "content": content.decode("utf-8", "replace")}).encode()
        kept = await patiently(lambda: self.keep(task.session, opening), "conductor")
        payload = Payload(commit=commit(salt, content), size=len(content), media=media)
        suffix = kind.rsplit(".", 1)[-1]
        entry = new_entry(
            kind, actor_of(standing.agent), id=f"{_entry_id(run)}/{suffix}", data={**_names(task, run), **data, "opening": kept},
            session=task.session, config=standing.config, payload=payload, now=self.clock(),
        )  # fmt: skip
        await self._append(entry)

    async def _append(self, entry: EntryRequest) -> None:
        await patiently(lambda: self.ledger.append(entry), "ledger")


def actor_of(agent: AgentEntry) -> Actor:
    """The agent as entries name it."""
    return Actor(kind="agent", id=agent.name, seed=agent.identity.seed, commitment=agent.identity.commitment)


def _names(task: Task, run: ToolRun) -> dict[str, Any]:
    return {"task": task.task, "gen_ai.tool.name": run.call.name, "gen_ai.tool.call.id": run.id[:200], "call": run.ordinal}


def _entry_id(run: ToolRun) -> str:
    """Stable for the call. The call id may be longer than an entry's id."""
    return f"tool/{sha256_hex(run.id.encode())[:48]}"
