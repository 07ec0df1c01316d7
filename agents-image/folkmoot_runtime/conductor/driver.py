"""Drives one deliberation: meets the needs it yields, at the same time where it yields them together, and sends the answers.

Called by the runner, again from the start after every restart: stored answers are sent again, and only what was never
answered is asked. The deliberation itself decides; nothing here looks at what an answer says.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, assert_never

from pydantic import TypeAdapter, ValidationError

from folkmoot_core.deliberation import Answer, AskAgent, Deliberation, Need, Note, Outcome, ProbeResult, RunCheck, RunProbes
from folkmoot_core.entries import EntryType
from folkmoot_core.errors import Conflict, Invalid, LimitReached
from folkmoot_runtime.conductor.checks import Checks
from folkmoot_runtime.conductor.journal import Journal
from folkmoot_runtime.conductor.notary import Fact, Notary, actor_of
from folkmoot_runtime.conductor.tasks import Tasks

_ENTRY_TYPE: TypeAdapter[EntryType] = TypeAdapter(EntryType)
Hold = Callable[[Journal, str], Awaitable[None]]


class Prober(Protocol):
    """What meets RunProbes."""

    async def run(self, session: str, need: RunProbes) -> ProbeResult: ...


class Driver:
    """`hold` returns when the agent may be given a task (nothing on its way is suspended)."""

    def __init__(self, tasks: Tasks, checks: Checks, prober: Prober, notary: Notary, hold: Hold) -> None:
        self._tasks = tasks
        self._checks = checks
        self._prober = prober
        self._notary = notary
        self._hold = hold

    async def drive(self, journal: Journal, deliberation: Deliberation) -> Outcome:
        """Run to the outcome. Raises `LimitReached` when the session's tokens are used up, `Conflict` when the stored needs
        are not those that the deliberation asks for."""
        try:
            needs = next(deliberation)
            while True:
                needs = deliberation.send(await self._meet_all(journal, needs))
        except StopIteration as ended:
            outcome: Outcome = ended.value
            return outcome
        finally:
            deliberation.close()

    async def _meet_all(self, journal: Journal, needs: Sequence[Need]) -> dict[str, Answer]:
        ids = [need.id for need in needs]
        if len(set(ids)) != len(ids):
            raise Invalid(f"deliberation asks twice for one of {', '.join(sorted(ids))}", reason="DeliberationInvalid")
        agreed = [_agreed(journal, need) for need in needs]
        unasked = sum(1 for need in agreed if isinstance(need, AskAgent) and need.id not in journal.needs)
        if unasked and not journal.tokens_left():
            raise LimitReached(f"the session's {journal.order.spec.budget.tokens} tokens are used up")
        # Shared out beforehand: members that work at the same time cannot spend the same remainder.
        share = journal.tokens_left() // max(unasked, 1)
        answers = await _together([self._meet(journal, need, share) for need in agreed])
        return dict(zip(ids, answers, strict=True))

    async def _meet(self, journal: Journal, need: Need, tokens: int) -> Answer:
        match need:
            case AskAgent():
                if need.id not in journal.needs:
                    await self._hold(journal, need.agent)
                return await self._tasks.ask(journal, need, tokens)
            case RunCheck():
                return await self._check(journal, need)
            case RunProbes():
                return await self._probe(journal, need)
            case Note():
                return await self._note(journal, need)
            case _:
                assert_never(need)

    async def _check(self, journal: Journal, need: RunCheck) -> Answer:
        row = await journal.ask(need, 0)
        if not row.answered:
            ran = await self._checks.run(journal.uid, need)
            event = {
                "need": need.id,
                "name": need.name,
                "exit_code": ran.exit_code,
                "timed_out": ran.timed_out,
                "error": ran.error,
            }
            await journal.answer(need.id, ran, ("check.result", event))
        return journal.needs[need.id].answer

    async def _probe(self, journal: Journal, need: RunProbes) -> Answer:
        row = await journal.ask(need, 0)
        if not row.answered:
            found = await self._prober.run(journal.uid, need)
            shapes = sorted({finding.shape for finding in found.findings})
            event = {"need": need.id, "findings": len(found.findings), "shapes": shapes, "error": found.error}
            await journal.answer(need.id, found, ("probes.result", event))
        return journal.needs[need.id].answer

    async def _note(self, journal: Journal, need: Note) -> Answer:
        row = await journal.ask(need, 0)
        if not row.answered:
            index = await self._notary.put(_fact(journal, need))
            await journal.answer(
                need.id, None, (need.entry, {**need.detail, **need.data, "need": need.id, "actor": need.actor, "ledger": index})
            )
        return None


def _agreed(journal: Journal, need: Need) -> Need:
    """The need as it was first asked. A changed prompt does no harm; another question under the same id is refused."""
    stored = journal.needs.get(need.id)
    if stored is None:
        return need
    asked = stored.need
    same_agent = not isinstance(need, AskAgent) or (isinstance(asked, AskAgent) and asked.agent == need.agent)
    if asked.kind != need.kind or not same_agent:
        raise Conflict(
            f"need {need.id}: another one is stored under this id; was the conductor changed?", reason="ReplayDiverged"
        )
    return asked


def _fact(journal: Journal, note: Note) -> Fact:
    try:
        kind = _ENTRY_TYPE.validate_python(note.entry)
    except ValidationError:
        raise Invalid(f"note {note.id}: {note.entry!r} is not a type of ledger entry") from None
    return Fact(
        id=f"{journal.uid}/{note.id}", type=kind, actor=actor_of(journal.document, note.actor), data=note.data,
        session=journal.uid, config=journal.row.document or "", commits_to=note.commits_to,
    )  # fmt: skip


async def _together(meetings: Sequence[Awaitable[Answer]]) -> list[Answer]:
    """All answers in order. One failure ends the others, and leaves none of them running."""
    tasks = [asyncio.ensure_future(meeting) for meeting in meetings]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
