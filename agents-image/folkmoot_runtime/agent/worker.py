"""Drives the work on one task (folkmoot_core.agent_loop): model calls, tool calls with their journal, the deadline.

After a kill the whole task is driven again: the broker answers from its store, the journal answers for tool calls. Obligations
for a tool call, in this order: 1. sandbox open; 2. journal `started`; 3. intent durable in the ledger; 4. run; 5. workspace
stored; 6. outcome durable; 7. journal `done`. A call found `started` is recorded `interrupted` and never run again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from folkmoot_core import agent_loop
from folkmoot_core.agent_loop import CallModel, GiveUp, RunTools, ToolRun, ToolText
from folkmoot_core.calls import CallAnswer, CallEnvelope
from folkmoot_core.errors import FolkmootError
from folkmoot_core.messages import InputRef, Task, TaskResult
from folkmoot_core.resources.common import seconds
from folkmoot_core.workspace import Lease, StepRecord, ToolCall
from folkmoot_runtime.agent.peers import Broker, Conductor, Sandbox, patiently
from folkmoot_runtime.agent.record import Recorder, Standing
from folkmoot_runtime.agent.workspace import NoResult, Refused, SandboxLost, Workspace

log = logging.getLogger(__name__)
MAX_LOSSES = 5  # times a task may lose its sandbox
MAX_TEXT = 200_000  # characters of a StepRecord
RELEASE_SECONDS = 3.0
State = Literal["started", "done", "interrupted"]
NOTHING = ToolText("")


@dataclass(frozen=True)
class Doors:
    """Everything a worker reaches."""

    conductor: Conductor
    broker: Broker
    sandbox_of: Callable[[Lease], Sandbox]
    recorder: Recorder


class Worker:
    """Works on one task for one agent; made anew for each. `clock` gives epoch seconds."""

    def __init__(self, doors: Doors, task: Task, standing: Standing, clock: Callable[[], float]) -> None:
        self._doors = doors
        self._task = task
        self._standing = standing
        self._agent = standing.agent
        self._clock = clock
        self._steps: dict[int, StepRecord] = {}
        self._losses = 0
        self._workspace = (
            Workspace(doors.conductor, doors.sandbox_of, task.session, task.workspace) if task.workspace is not None else None
        )

    async def run(self) -> TaskResult:
        """The task's result. Failures of peers and limits are results too; only a cancellation gets out."""
        task = self._task
        try:
            result = await self._drive()
        except (TimeoutError, GiveUp, FolkmootError) as error:  # before the work began
            stop = _reason(error)
            result = TaskResult(task=task.task, session=task.session, status="failed", reason=stop.reason, error=stop.message)
        finally:
            await self._release()
        return result.model_copy(update={"workspace": self._workspace.digest}) if self._workspace is not None else result

    async def _drive(self) -> TaskResult:
        async with self._until_deadline():
            inputs = await self._inputs()
            if self._workspace is not None:
                self._steps = await patiently(lambda: self._doors.conductor.steps(self._task.task), "conductor")
        work = agent_loop.work(self._task, self._agent, inputs)
        try:
            step = next(work)
            while True:
                try:
                    async with self._until_deadline():
                        answer = await self._act(step)
                except (TimeoutError, GiveUp, FolkmootError) as error:
                    step = work.throw(_reason(error))  # it returns what was used so far
                else:
                    step = work.send(answer)
        except StopIteration as end:
            result: TaskResult = end.value
            return result

    def _until_deadline(self) -> asyncio.Timeout:
        return asyncio.timeout(self._task.deadline_ms / 1000 - self._clock())

    async def _act(self, step: CallModel | RunTools) -> CallAnswer | Sequence[ToolText]:
        if isinstance(step, RunTools):
            return [await self._tool(run) for run in step.runs]
        model = self._agent.spec.model
        envelope = CallEnvelope(
            session=self._task.session, task=self._task.task, step=step.step, provider=model.provider, model=model.name,
            request=step.request,
        )  # fmt: skip
        return await patiently(lambda: self._doors.broker.call(envelope), "broker")

    async def _inputs(self) -> list[tuple[InputRef, str]]:
        found = []
        for ref in self._task.inputs:
            if agent_loop.is_text(ref.media):
                content = await patiently(partial(self._doors.conductor.artifact, ref.digest), "conductor")
                found.append((ref, content.decode("utf-8", "replace")))
        return found

    async def _tool(self, run: ToolRun) -> ToolText:
        workspace = self._workspace
        if run.problem or workspace is None:
            return ToolText(run.problem or "Not run: this task has no workspace.", error=True)
        known = self._steps.get(run.ordinal)
        if known is None:
            return await self._execute(run, workspace)
        if known.call_id != run.id:
            raise GiveUp("ReplayDiverged", f"the journal's call {run.ordinal} is another one than the model now asks for")
        if known.workspace is not None:
            workspace.digest = known.workspace
        if known.state == "started":
            return await self._interrupted(run)
        return ToolText(known.text, known.error)

    async def _execute(self, run: ToolRun, workspace: Workspace) -> ToolText:
        await workspace.ready()  # 1
        await self._write(run, "started")  # 2
        await self._doors.recorder.intent(self._task, self._standing, run)  # 3
        left = max(1, int(self._task.deadline_ms / 1000 - self._clock()))
        limit = min(seconds(self._agent.spec.sandbox.timeout), left, 3600)
        call = ToolCall(id=run.id, name=run.call.name, arguments=run.call.arguments, timeout_seconds=limit)
        try:
            answer = await workspace.run(call)  # 4, 5
        except NoResult as error:
            return await self._without_result(run, error)
        await self._doors.recorder.outcome(self._task, self._standing, run, answer)  # 6
        text = ToolText(answer.text[:MAX_TEXT], answer.error)
        await self._write(run, "done", text, workspace.digest)  # 7
        return text

    async def _without_result(self, run: ToolRun, error: NoResult) -> ToolText:
        log.warning("tool call without result", extra={"task": self._task.task, "call": run.ordinal, "state": error.state})
        if isinstance(error, SandboxLost):
            self._losses += 1
            told = await self._interrupted(run)
            if self._losses > MAX_LOSSES:
                raise GiveUp("SandboxLost", f"the sandbox was lost {self._losses} times in this task") from error
            return told
        before = "it was not run" if isinstance(error, Refused) else "it was undone; the workspace is as before the call"
        text = ToolText(f"[{error.state}: {before}. {error.message}]", error=True)
        await self._doors.recorder.closed(self._task, self._standing, run, error.state)
        await self._write(run, "done", text)
        return text

    async def _interrupted(self, run: ToolRun) -> ToolText:
        text = ToolText(agent_loop.INTERRUPTED, error=True)
        await self._doors.recorder.closed(self._task, self._standing, run, "interrupted")
        await self._write(run, "interrupted", text)
        return text

    async def _write(self, run: ToolRun, state: State, text: ToolText = NOTHING, workspace: str | None = None) -> None:
        record = StepRecord(
            step=run.ordinal,
            call_id=run.id,
            tool=run.call.name[:32],
            state=state,
            text=text.text,
            error=text.error,
            workspace=workspace,
        )
        await patiently(lambda: self._doors.conductor.put_step(self._task.task, record), "conductor")

    async def _release(self) -> None:
        """Best effort: the next lease wipes in any case."""
        if self._workspace is None:
            return
        try:
            async with asyncio.timeout(RELEASE_SECONDS):
                await self._workspace.release()
        except (FolkmootError, TimeoutError) as error:
            log.info("sandbox not released", extra={"task": self._task.task, "error": type(error).__name__})


def _reason(error: Exception) -> GiveUp:
    if isinstance(error, GiveUp):
        return error
    if isinstance(error, FolkmootError):
        return GiveUp(error.reason, error.message)
    return GiveUp("DeadlineExceeded", "the task's deadline passed before it was done")
