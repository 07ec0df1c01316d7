"""Sessions from acceptance to end: what is said, what is on record, what ends them."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from folkmoot_core.deliberation import AskAgent
from folkmoot_core.errors import Conflict, Invalid, Missing, Unavailable
from folkmoot_runtime.conductor import rows
from folkmoot_runtime.conductor.runner import Protocols

pytestmark = pytest.mark.looptime


async def test_a_council_session_succeeds_and_is_on_record(world: Any, make: Any) -> None:
    async with world.running() as conductor:
        await conductor.documents.put(make.document())
        accepted = await conductor.sessions.accept(make.order())
        assert accepted.phase == "Pending"
        report = await world.ended(conductor)
    assert (report.phase, report.reason, report.result_preview) == ("Succeeded", "Decided", "plan done: vote done; vote done")
    assert (report.input_tokens, report.output_tokens, report.cost, report.currency) == (21, 9, "0.03", "USD")
    assert (report.gate_verdict, report.votes_for, report.votes_against) == ("Approved", 2, 0)
    assert world.ledger.types(make.uid) == [
        "session.start", "task.sent", "task.result", "council.plan", "task.sent", "task.sent", "task.result", "task.result",
        "council.decision", "gate.verdict", "session.end",
    ]  # fmt: skip


async def finish(world: Any, conductor: Any, order: Any, document: Any) -> Any:
    await conductor.documents.put(document)
    await conductor.sessions.accept(order)
    return await world.ended(conductor, order.name)


async def events_of(conductor: Any, uid: str) -> list[Any]:
    return list(await conductor.store.run(rows.get_events, uid))


async def test_the_same_order_again_changes_nothing(world: Any, make: Any) -> None:
    async with world.running() as conductor:
        await conductor.documents.put(make.document())
        first, second = await asyncio.gather(conductor.sessions.accept(make.order()), conductor.sessions.accept(make.order()))
        assert first.uid == second.uid
        ended = await world.ended(conductor)
        again = await conductor.sessions.accept(make.order())
        assert again == ended
        newer = await conductor.sessions.accept(make.order(generation=3))
    assert (newer.phase, newer.generation, newer.sequence) == ("Succeeded", 3, ended.sequence)
    assert len(world.ledger.types(make.uid)) == 11


async def test_a_session_waits_for_its_target(world: Any, make: Any) -> None:
    order = make.order(kind="Agent", target="ana")
    async with world.running() as conductor:
        await conductor.documents.put(make.document(agents=("ben", "cyd")))
        await conductor.sessions.accept(order)
        await world.until(lambda: conductor.sessions.open_reports()[0].reason == "TargetNotFound")
        assert conductor.sessions.open_reports()[0].phase == "Pending"
        await conductor.documents.put(make.document(2))
        assert (await world.ended(conductor)).phase == "Succeeded"


async def test_without_any_document_a_session_waits(world: Any, make: Any) -> None:
    async with world.running() as conductor:
        await conductor.sessions.accept(make.order())
        await world.until(lambda: conductor.sessions.open_reports()[0].reason == "NoConfiguration")
        await conductor.documents.put(make.document())
        assert (await world.ended(conductor)).phase == "Succeeded"


@pytest.mark.parametrize("how", ["tenant", "agent"])
async def test_suspended_is_not_opened_and_resumes(world: Any, make: Any, how: str) -> None:
    order = make.order(kind="Agent", target="ana")
    suspended = make.document(suspended=True) if how == "tenant" else None
    async with world.running() as conductor:
        await conductor.documents.put(suspended or make.suspending("ana"))
        await conductor.sessions.accept(order)
        await world.until(lambda: conductor.sessions.open_reports()[0].reason == "Suspended")
        assert not world.agents["ana"].worked
        await conductor.documents.put(make.document(2))
        assert (await world.ended(conductor)).phase == "Succeeded"


async def test_a_running_session_is_paused_before_its_next_task(world: Any, make: Any) -> None:
    async with world.running() as conductor:
        await conductor.documents.put(make.document())
        pausing = make.suspending("ben", generation=2)
        loop_task: list[Any] = []

        def answer_then_pause(task: Any) -> Any:
            loop_task.append(asyncio.ensure_future(conductor.documents.put(pausing)))
            return make.say(task)

        world.replies["ana"] = answer_then_pause
        await conductor.sessions.accept(make.order())
        await world.until(lambda: conductor.sessions.open_reports()[0].reason == "Suspended")
        await world.until(lambda: len(world.agents["cyd"].worked) == 1)
        await asyncio.sleep(300)
        assert world.agents["ben"].worked == []
        await conductor.documents.put(make.document(3))
        report = await world.ended(conductor)
        phases = [e.data["reason"] for e in await events_of(conductor, make.uid) if e.type == "session.phase"]
    assert report.phase == "Succeeded"
    assert phases == ["Accepted", "Running", "Suspended", "Resumed", "Decided"]


async def test_a_document_replaced_in_between_changes_nothing_for_a_running_session(world: Any, make: Any) -> None:
    async with world.running() as conductor:
        digest = await conductor.documents.put(make.document())
        replaced: list[Any] = []

        def answer_then_replace(task: Any) -> Any:
            replaced.append(asyncio.ensure_future(conductor.documents.put(make.document(2, agents=("ana",)))))
            return make.say(task)

        world.replies["ana"] = answer_then_replace
        await conductor.sessions.accept(make.order())
        report = await world.ended(conductor)
        row = await conductor.sessions.find("review")
        await world.until(lambda: len([e for e in world.ledger.entries.values() if e.type == "config.changed"]) == 2)
    assert report.phase == "Succeeded"
    assert row.document == digest
    configs = {e.config for e in world.ledger.entries.values() if e.session == make.uid}
    assert configs == {digest}


async def test_at_most_the_limit_runs_and_critical_goes_first(world: Any, make: Any) -> None:
    world.limit = 1
    world.replies["ana"] = lambda task: None
    uids = [f"{n}-session-uid" for n in "abc"]
    async with world.running() as conductor:
        await conductor.documents.put(make.document())
        await conductor.sessions.accept(make.order(uids[0], "first", "Agent", "ana"))
        await world.until(lambda: len(world.agents["ana"].worked) == 1)
        await conductor.sessions.accept(make.order(uids[1], "routine", "Agent", "ben"))
        await conductor.sessions.accept(make.order(uids[2], "urgent", "Agent", "cyd", priority="Critical"))
        await world.until(lambda: [r.reason for r in conductor.sessions.open_reports()] == ["Running", "Queued", "Queued"])
        await conductor.sessions.cancel(uids[0])
        await world.ended(conductor, "routine")
        reports = {r.name: r for r in await conductor.sessions.all_reports()}
    assert reports["urgent"].ledger_last < reports["routine"].ledger_first
    assert [r.phase for r in reports.values()] == ["Succeeded", "Succeeded", "Cancelled"]


async def test_cancel_in_flight_tells_the_agents(world: Any, make: Any) -> None:
    for name in ("ben", "cyd"):
        world.replies[name] = lambda task: None
    async with world.running() as conductor:
        await conductor.documents.put(make.document())
        await conductor.sessions.accept(make.order())
        await world.until(lambda: len(world.agents["cyd"].worked) == 1)
        report = await conductor.sessions.cancel(make.uid)
        assert (report.phase, report.reason) == ("Cancelled", "Cancelled")
        await world.until(lambda: world.agents["ben"].cancelled and world.agents["cyd"].cancelled)
        assert world.agents["ben"].cancelled == [f"{make.uid}/vote/1/ben"]
        assert world.agents["ana"].cancelled == []
        late = json.dumps({"task": f"{make.uid}/vote/1/ben", "session": make.uid, "status": "done", "output": "late"})
        await world.agents["ben"].bus.send(make.message("ben", "result", "x" * 40, late))
        await asyncio.sleep(10)
        last = (await events_of(conductor, make.uid))[-1]
        assert (last.type, last.data["phase"], last.n) == ("session.phase", "Cancelled", report.sequence)
    assert world.ledger.types(make.uid)[-2:] == ["session.cancelled", "session.end"]


async def test_a_cancel_survives_a_crash(world: Any, make: Any) -> None:
    world.replies["ana"] = lambda task: None
    async with world.running() as conductor:
        await conductor.documents.put(make.document())
        await conductor.sessions.accept(make.order())
        await world.until(lambda: world.agents["ana"].worked)
        world.ledger.failing = Unavailable("away")
        assert (await conductor.sessions.cancel(make.uid)).phase == "Running"
    world.ledger.failing = None
    async with world.running() as conductor:
        assert (await world.ended(conductor)).phase == "Cancelled"


async def test_cancelling_what_waits_and_what_is_unknown(world: Any, make: Any) -> None:
    async with world.running() as conductor:
        await conductor.sessions.accept(make.order())
        assert (await conductor.sessions.cancel(make.uid)).phase == "Cancelled"
        assert (await conductor.sessions.cancel(make.uid)).phase == "Cancelled"
        with pytest.raises(Missing):
            await conductor.sessions.cancel("99999999-none")
    assert world.ledger.types(make.uid) == ["session.cancelled", "session.end"]


async def test_tokens_over_the_budget_end_the_session(world: Any, make: Any) -> None:
    async with world.running() as conductor:
        report = await finish(world, conductor, make.order(budget={"tokens": 15}), make.document())
    assert (report.phase, report.reason) == ("Failed", "LimitReached")
    assert "tokens" in report.message
    assert report.input_tokens + report.output_tokens > 15


async def test_tokens_used_up_exactly_stop_the_next_question(world: Any, make: Any) -> None:
    async with world.running() as conductor:
        report = await finish(world, conductor, make.order(budget={"tokens": 10}), make.document())
    assert (report.phase, report.reason) == ("Failed", "LimitReached")
    assert not world.agents["ben"].worked


async def test_members_at_work_at_once_share_what_is_left(world: Any, make: Any) -> None:
    async with world.running() as conductor:
        await finish(world, conductor, make.order(budget={"tokens": 1010}), make.document())
    limits = [json.loads(e.body)["max_tokens"] for e in world.sent if e.kind == "task"]
    assert limits == [1010, 500, 500]


async def test_the_wall_clock_ends_a_session(world: Any, make: Any) -> None:
    world.replies["ana"] = lambda task: None
    order = make.order(kind="Agent", target="ana", budget={"wallClock": "5m"})
    async with world.running() as conductor:
        report = await finish(world, conductor, order, make.document())
    assert (report.phase, report.reason) == ("Failed", "LimitReached")
    assert "wall clock 5m" in report.message
    assert world.loop.time() == pytest.approx(300, abs=2)
    assert world.agents["ana"].cancelled == [f"{make.uid}/answer"]


async def test_the_wall_clock_goes_on_while_the_conductor_is_down(world: Any, make: Any) -> None:
    world.replies["ana"] = lambda task: None
    async with world.running() as conductor:
        await conductor.documents.put(make.document())
        await conductor.sessions.accept(make.order(kind="Agent", target="ana", budget={"wallClock": "5m"}))
        await world.until(lambda: world.agents["ana"].worked)
    await asyncio.sleep(1000)
    async with world.running() as conductor:
        report = await world.ended(conductor, limit=10)
    assert report.reason == "LimitReached"


async def test_the_next_session_opens_with_the_closing_note(world: Any, make: Any) -> None:
    prompts: list[str] = []

    def listen(task: Any) -> Any:
        prompts.append(task.prompt)
        return make.say(task)

    world.replies["ana"] = listen
    follow = make.order("22222222-next", "next", "Agent", "ana", continues={"name": "review"})
    async with world.running() as conductor:
        await conductor.documents.put(make.document())
        await conductor.sessions.accept(follow)
        await world.until(lambda: conductor.sessions.open_reports()[0].reason == "PreviousNotFound")
        await conductor.sessions.accept(make.order())
        await world.ended(conductor, "next")
        row = await conductor.sessions.find("review")
    note = prompts[-1]
    assert "Session review ended Succeeded (Decided)" in note
    assert "Unfinished: write the changelog" in note
    assert row.note is not None
    assert f"Final ledger index: {row.note.ledger}" in note
    start = next(e for e in world.ledger.entries.values() if e.session == "22222222-next" and e.type == "session.start")
    end = next(e for e in world.ledger.entries.values() if e.session == make.uid and e.type == "session.end")
    assert start.data["continues"] == {"name": "review", "note": end.payload.commit}


async def test_no_receipt_no_effect(world: Any, make: Any) -> None:
    """While the ledger is away no task goes out and no end is shown; nothing is lost."""
    world.ledger.failing = Unavailable("away")
    async with world.running() as conductor:
        await conductor.documents.put(make.document())
        await conductor.sessions.accept(make.order())
        await asyncio.sleep(120)
        assert conductor.sessions.open_reports()[0].phase == "Pending"
        assert not world.sent
        world.replies["ana"] = lambda task: (setattr(world.ledger, "failing", Unavailable("away")), make.say(task))[1]
        world.ledger.failing = None
        await asyncio.sleep(120)
        assert len(world.agents["ana"].worked) == 1
        assert not world.agents["ben"].worked
        world.ledger.failing = None
        assert (await world.ended(conductor)).phase == "Succeeded"


async def test_the_end_is_shown_only_when_it_is_on_record(world: Any, make: Any) -> None:
    def last_answer(task: Any) -> Any:
        world.ledger.failing = Unavailable("away")
        return make.say(task)

    world.replies["ana"] = last_answer
    async with world.running() as conductor:
        await conductor.documents.put(make.document())
        await conductor.sessions.accept(make.order(kind="Agent", target="ana"))
        await asyncio.sleep(120)
        assert conductor.sessions.open_reports()[0].phase == "Running"
        world.ledger.failing = None
        report = await world.ended(conductor)
    assert report.phase == "Succeeded"
    assert report.ledger_last == world.ledger.log.size - 1


async def test_a_closed_log_leaves_the_session_as_it_is(world: Any, make: Any) -> None:
    world.ledger.failing = Conflict("closed", reason="LogClosed")
    async with world.running() as conductor:
        await conductor.documents.put(make.document())
        await conductor.sessions.accept(make.order())
        await asyncio.sleep(60)
        assert conductor.sessions.open_reports()[0].phase == "Pending"
        world.ledger.failing = None
        report = await world.ended(conductor)
    assert (report.phase, report.reason) == ("Failed", "LogClosed")


async def test_a_full_disk_ends_the_process_and_no_session(world: Any, make: Any) -> None:
    store = world.store()
    async with world.running(store) as conductor:
        await conductor.documents.put(make.document())
        world.replies["ana"] = lambda task: (setattr(store, "full", True), make.say(task))[1]
        await conductor.sessions.accept(make.order())
        await world.until(lambda: world.work.done())
        assert conductor.sessions.open_reports()[0].phase == "Running"
    async with world.running() as conductor:
        assert (await world.ended(conductor)).phase == "Succeeded"
    assert world.agents["ana"].worked == [f"{make.uid}/plan"]


async def test_a_protocol_that_breaks_fails_its_session_alone(world: Any, make: Any) -> None:
    def broken(context: Any) -> Any:
        yield ()
        raise KeyError("a bug")

    world.protocols = Protocols(council=broken, agent=world.protocols.agent)
    async with world.running() as conductor:
        report = await finish(world, conductor, make.order(), make.document())
        other = await finish(world, conductor, make.order("22222222-other", "other", "Agent", "ben"), make.document())
    assert (report.phase, report.reason, report.message) == ("Failed", "InternalError", "the deliberation raised KeyError")
    assert other.phase == "Succeeded"


async def test_another_question_under_a_stored_id_is_refused(world: Any, make: Any) -> None:
    world.replies["ana"] = lambda task: None
    async with world.running() as conductor:
        await conductor.documents.put(make.document())
        await conductor.sessions.accept(make.order())
        await world.until(lambda: world.agents["ana"].worked)

    def changed(context: Any) -> Any:
        yield (AskAgent(id="plan", agent="ben", task="plan", prompt="?", timeout_seconds=5),)

    world.protocols = Protocols(council=changed, agent=world.protocols.agent)
    async with world.running() as conductor:
        report = await world.ended(conductor)
    assert (report.phase, report.reason) == ("Failed", "ReplayDiverged")
    assert not world.agents["ben"].worked


async def test_sealing_ends_everything_and_closes_the_log(world: Any, make: Any) -> None:
    world.replies["ana"] = lambda task: None
    async with world.running() as conductor:
        await conductor.documents.put(make.document())
        await conductor.sessions.accept(make.order())
        await world.until(lambda: world.agents["ana"].worked)
        size = await conductor.sessions.seal()
        assert (await conductor.sessions.report("review")).phase == "Cancelled"
        assert size == world.ledger.log.size
        assert await conductor.sessions.seal() == size
        with pytest.raises(Conflict):
            await conductor.sessions.accept(make.order("22222222-late", "late"))
    async with world.running() as conductor:
        with pytest.raises(Conflict):
            await conductor.sessions.accept(make.order("22222222-late", "late"))


async def test_a_seal_that_cannot_finish_says_so_and_can_be_repeated(world: Any, make: Any) -> None:
    world.replies["ana"] = lambda task: None
    async with world.running() as conductor:
        await conductor.documents.put(make.document())
        await conductor.sessions.accept(make.order())
        await world.until(lambda: world.agents["ana"].worked)
        world.ledger.failing = Unavailable("away")
        with pytest.raises(Unavailable):
            await conductor.sessions.seal()
        world.ledger.failing = None
        assert await conductor.sessions.seal() == world.ledger.log.size


async def test_old_sessions_are_forgotten_after_the_tenants_period(world: Any, make: Any) -> None:
    """366 days by default, with all their content and the keys it was sealed under."""
    async with world.running() as conductor:
        await finish(world, conductor, make.order(), make.document())
        kept = (await conductor.sessions.find("review")).order.uid
        for days, there in ((365, True), (2, False)):
            world.skipped += days * 86400
            await conductor.sessions.tidy()
            await conductor.sessions.tidy()
            assert bool([p for p in (world.directory / "sealed").rglob("*") if p.is_file()]) == there
            assert bool(list((world.directory / "keys" / "shares").iterdir())) == there
        with pytest.raises(Missing):
            await conductor.sessions.report(kept)


async def test_no_document_makes_the_period_shorter_than_184_days(world: Any, make: Any) -> None:
    document = make.document()
    short = document.model_copy(update={"audit": document.audit.model_copy(update={"retention_days": 1})})
    async with world.running() as conductor:
        await finish(world, conductor, make.order(), short)
        world.skipped += 183 * 86400
        await conductor.sessions.tidy()
        assert await conductor.sessions.report("review")
        world.skipped += 2 * 86400
        await conductor.sessions.tidy()
        with pytest.raises(Missing):
            await conductor.sessions.report("review")


@pytest.mark.parametrize("uid", ["", "short", "has/slash-and-more", "x" * 65, "über-üb-üb"])
async def test_uids_that_are_no_uids(world: Any, make: Any, uid: str) -> None:
    async with world.running() as conductor:
        with pytest.raises(Invalid):
            await conductor.sessions.accept(make.order(uid))
