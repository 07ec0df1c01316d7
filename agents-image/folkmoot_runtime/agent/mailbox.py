"""The agent's consumer loop: tasks are acknowledged at once, worked on one at a time, answered, and only then put away.

A delivery is `done` after its result is durably in the outbox, so a kill at any moment means: do it again, with the same
request ids, which the router drops if they got through before. A cancel stops the task it names.
"""

from __future__ import annotations

import asyncio
import json
import logging
import traceback
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from pydantic import ValidationError

from folkmoot_core.canonical import sha256_hex
from folkmoot_core.errors import FolkmootError
from folkmoot_core.messages import MAX_BODY, Envelope, Kind, Task, TaskResult
from folkmoot_core.names import CORE
from folkmoot_runtime.agent.peers import patiently
from folkmoot_runtime.bus.interface import Bus, Delivery

log = logging.getLogger(__name__)
BLOCK_SECONDS = 2.0
PAUSE_SECONDS = 1.0
REMEMBERED = 1000  # finished request ids: a late resend of one is put away without working on it again
Work = Callable[[Task], Awaitable[TaskResult]]


@dataclass
class _Job:
    envelope: Envelope
    task: Task
    deliveries: list[str]
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)


class Mailbox:
    """`work` makes a result of a task; it raises nothing but cancellation that it should not. `clock` gives epoch seconds."""

    def __init__(self, bus: Bus, tenant: str, agent: str, work: Work, clock: Callable[[], float]) -> None:
        self._bus = bus
        self._tenant = tenant
        self._agent = agent
        self._work = work
        self._clock = clock
        self._jobs: dict[str, _Job] = {}  # by the task message's request_id, in order of arrival
        self._queue: asyncio.Queue[_Job] = asyncio.Queue()
        self._finished: OrderedDict[str, None] = OrderedDict()
        self._beats = 0

    async def run(self) -> None:
        """Receive and work until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.receive_forever())
            tasks.create_task(self.work_forever())

    async def receive_forever(self) -> None:
        """Take what arrives, also while a task runs: a cancel must get through."""
        while True:
            try:
                deliveries = await self._bus.receive(BLOCK_SECONDS)
            except FolkmootError as error:
                log.warning("bus does not deliver", extra={"error": error.message})
                await asyncio.sleep(PAUSE_SECONDS)
                continue
            for delivery in deliveries:
                await self._take(delivery)

    async def work_forever(self) -> None:
        """One task after the other."""
        while True:
            await self.work_once()

    async def work_once(self) -> None:
        """Work on the next task, answer it, put it away."""
        job = await self._queue.get()
        result = await self._result(job)
        await self._answer(job, result)
        for delivery_id in job.deliveries:
            await self._done(delivery_id)
        self._jobs.pop(job.envelope.request_id, None)
        self._finished[job.envelope.request_id] = None
        while len(self._finished) > REMEMBERED:
            self._finished.popitem(last=False)

    async def heartbeat(self) -> None:
        """For the record: this process works, and on how much."""
        self._beats += 1
        now_ms = int(self._clock() * 1000)
        body = json.dumps({"beat": self._beats, "waiting": self._queue.qsize(), "open": len(self._jobs)})
        request_id = self._identity("heartbeat", f"{now_ms}/{self._beats}")
        await self._bus.send(self._envelope("heartbeat", request_id, body, None))

    async def _take(self, delivery: Delivery) -> None:
        envelope = delivery.envelope
        if envelope.kind == "task":
            await self._take_task(delivery)
            return
        if envelope.kind == "cancel":
            self._cancel(envelope)
        await self._done(delivery.id)

    async def _take_task(self, delivery: Delivery) -> None:
        envelope = delivery.envelope
        try:
            task = Task.model_validate_json(envelope.body)
        except ValidationError:
            log.error("task does not parse; put away", extra={"request_id": envelope.request_id})
            await self._done(delivery.id)
            return
        ack = self._envelope("ack", self._identity("ack", envelope.request_id), "{}", envelope)
        await patiently(lambda: self._bus.send(ack), "bus")
        if envelope.request_id in self._finished:
            await self._done(delivery.id)
        elif (known := self._jobs.get(envelope.request_id)) is not None:
            known.deliveries.append(delivery.id)
        else:
            job = _Job(envelope, task, [delivery.id])
            self._jobs[envelope.request_id] = job
            self._queue.put_nowait(job)

    def _cancel(self, envelope: Envelope) -> None:
        for job in self._jobs.values():
            if job.envelope.request_id == envelope.ack_for or job.task.task == _task_of(envelope):
                log.info("task cancelled", extra={"task": job.task.task})
                job.cancelled.set()

    async def _result(self, job: _Job) -> TaskResult:
        """The edge: whatever goes wrong inside becomes a failed result. Its message may hold content, so only its place is
        logged."""
        if job.cancelled.is_set():
            return _failed(job.task, "Cancelled", "the task was cancelled before it began")
        work = asyncio.ensure_future(self._work(job.task))
        cancelled = asyncio.ensure_future(job.cancelled.wait())
        try:
            await asyncio.wait({work, cancelled}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                return _failed(job.task, "Cancelled", "the task was cancelled")
            return work.result()
        except Exception as error:  # noqa: BLE001 - the consumer loop's edge: the failure goes on record as the task's result
            where = traceback.format_tb(error.__traceback__)[-3:]
            log.error(
                "task failed inside the agent", extra={"task": job.task.task, "error": type(error).__name__, "where": where}
            )
            return _failed(job.task, "InternalError", f"the agent failed with {type(error).__name__}")
        finally:
            for each in (work, cancelled):
                each.cancel()
            await asyncio.gather(work, cancelled, return_exceptions=True)

    async def _answer(self, job: _Job, result: TaskResult) -> None:
        body = result.model_dump_json()
        if len(body.encode()) > MAX_BODY:
            small = result.model_copy(update={"status": "failed", "output": None, "reason": "OutputTooLarge"})
            body = small.model_copy(update={"error": f"the result has more than {MAX_BODY} bytes"}).model_dump_json()
        identity = self._identity("result", f"{job.task.task}\n{job.envelope.request_id}")
        message = self._envelope("result", identity, body, job.envelope)
        await patiently(lambda: self._bus.send(message), "bus")
        log.info("task answered", extra={"task": job.task.task, "status": result.status, "reason": result.reason})

    async def _done(self, delivery_id: str) -> None:
        await patiently(lambda: self._bus.done(delivery_id), "bus")

    def _identity(self, kind: Kind, of: str) -> str:
        """Deterministic, so that what is sent again after a kill is recognised."""
        return sha256_hex(f"{kind}\n{self._agent}\n{of}".encode())[:40]

    def _envelope(self, kind: Kind, request_id: str, body: str, to: Envelope | None) -> Envelope:
        return Envelope(
            request_id=request_id, ack_for=to.request_id if to else "", conversation=to.conversation if to else "", tenant=self._tenant,
            sender=self._agent, to=CORE, kind=kind, priority=to.priority if to else "routine",
            created_ms=int(self._clock() * 1000), body=body,
        )  # fmt: skip


def _task_of(envelope: Envelope) -> str:
    try:
        body = json.loads(envelope.body)
    except ValueError:
        return ""
    return str(body.get("task", "")) if isinstance(body, dict) else ""


def _failed(task: Task, reason: str, error: str) -> TaskResult:
    return TaskResult(task=task.task, session=task.session, status="failed", reason=reason, error=error)
