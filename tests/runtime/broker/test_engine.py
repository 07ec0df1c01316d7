"""One call from request to answer: policy, journal, ledger, single flight, doubt. Faults are injected at every boundary."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable
from typing import Any

import pytest

from folkmoot_core.calls import CallEnvelope, TextPart, call_key
from folkmoot_core.canonical import canonical_json, commit
from folkmoot_core.errors import Conflict, Forbidden, Unavailable
from folkmoot_runtime.broker import records
from folkmoot_runtime.broker.engine import ProviderFailed
from folkmoot_runtime.broker.providers.interface import ProviderError

Open = Callable[..., Any]
Call = Callable[..., CallEnvelope]
BUSY = ProviderError("status", "busy", status=529)


async def test_a_call_is_announced_made_stored_recorded_and_answered(bench: Any, call: Call) -> None:
    answer = await bench.engine.ask("ana", call())
    assert answer.result.parts == (TextPart(text="hello"),)
    assert (answer.cost, answer.currency, answer.family, answer.stored) == ("0.00996", "EUR", "claude", False)
    intent, outcome = bench.ledger.entries
    assert (intent.type, outcome.type) == ("model.call.intent", "model.call.outcome")
    assert intent.actor.seed == "a" * 64
    assert outcome.data["gen_ai.usage.input_tokens"] == 1000
    assert outcome.data["folkmoot.cost"] == "0.00996"
    assert outcome.data["folkmoot.attempts"] == 1
    assert outcome.data["gen_ai.provider.name"] == "anthropic"
    for entry in (intent, outcome):
        canonical_json(entry.data)  # inside the subset that the ledger takes
        assert "secret words" not in entry.model_dump_json()
        assert "hello" not in entry.model_dump_json()


async def test_the_openings_of_the_commitments_stay_in_the_journal(bench: Any, call: Call) -> None:
    answer = await bench.engine.ask("ana", call())
    for entry, content in zip(
        bench.ledger.entries, (call().request.model_dump_json(), answer.result.model_dump_json()), strict=True
    ):
        opening = bench.engine.journal.opening(entry.id)
        assert opening.content == content.encode()
        assert entry.payload.commit == commit(opening.salt, opening.content)
        assert entry.payload.size == len(content.encode())


async def test_a_stored_answer_is_given_again_without_a_second_call(open_bench: Open, call: Call) -> None:
    first = await open_bench().engine.ask("ana", call())
    bench = open_bench()
    again = await bench.engine.ask("ana", call())
    assert again == first.model_copy(update={"stored": True})
    assert bench.providers.calls == 1
    assert len(bench.ledger.entries) == 2


async def test_equal_prompts_at_different_steps_are_different_calls(bench: Any, call: Call) -> None:
    await bench.engine.ask("ana", call(step=1))
    await bench.engine.ask("ana", call(step=2))
    assert bench.providers.calls == 2


async def test_a_second_identical_request_waits_for_the_first(open_bench: Open, call: Call) -> None:
    release = asyncio.Event()

    async def slow() -> str:
        await release.wait()
        return "once"

    bench = open_bench(slow)
    asked = [asyncio.create_task(bench.engine.ask("ana", call())) for _ in range(5)]
    while not bench.providers.calls:
        await asyncio.sleep(0.001)
    release.set()
    answers = await asyncio.gather(*asked)
    assert bench.providers.calls == 1
    assert [answer.stored for answer in answers].count(False) == 1


async def test_an_agent_that_goes_away_does_not_stop_the_call(open_bench: Open, call: Call) -> None:
    release = asyncio.Event()

    async def slow() -> str:
        await release.wait()
        return "kept"

    bench = open_bench(slow)
    asked = asyncio.create_task(bench.engine.ask("ana", call()))
    while not bench.providers.calls:
        await asyncio.sleep(0.001)
    asked.cancel()
    await asyncio.gather(asked, return_exceptions=True)
    release.set()
    answer = await bench.engine.ask("ana", call())
    assert answer.stored
    assert bench.providers.calls == 1


async def test_nothing_leaves_before_a_document_has_come(bench: Any, call: Call) -> None:
    bench.world["document"] = None
    with pytest.raises(Unavailable) as caught:
        await bench.engine.ask("ana", call())
    assert caught.value.reason == "NoDocument"
    assert bench.providers.calls == 0


async def test_a_refusal_is_final_and_on_record_once(bench: Any, call: Call) -> None:
    for _ in range(3):
        with pytest.raises(Forbidden) as caught:
            await bench.engine.ask("ana", call(model="claude-dear"))
        assert caught.value.reason == "ModelNotAgents"
    await bench.engine.flush()
    (entry,) = bench.ledger.entries
    assert (entry.data["folkmoot.outcome"], entry.data["folkmoot.reason"]) == ("refused", "ModelNotAgents")
    assert bench.providers.calls == 0


async def test_no_receipt_no_effect(bench: Any, call: Call) -> None:
    bench.ledger.failing = Unavailable("the ledger is away")
    with pytest.raises(Unavailable):
        await bench.engine.ask("ana", call())
    assert bench.providers.calls == 0
    bench.ledger.failing = None
    await bench.engine.ask("ana", call())
    assert bench.providers.calls == 1
    assert len(bench.entries("intent")) == 1


async def test_a_paid_answer_waits_for_its_record_and_is_not_paid_again(open_bench: Open, call: Call) -> None:
    bench = open_bench()

    def step(name: str) -> None:
        if name == "stored":
            bench.ledger.failing = Unavailable("gone meanwhile")

    bench.engine.step = step
    with pytest.raises(Unavailable):
        await bench.engine.ask("ana", call())
    assert not bench.entries("outcome")
    bench.ledger.failing = None
    answer = await bench.engine.ask("ana", call())
    assert answer.stored
    assert bench.providers.calls == 1
    assert len(bench.entries("outcome")) == 1


async def test_what_is_queued_reaches_the_ledger_without_being_asked_for(open_bench: Open, call: Call) -> None:
    bench = open_bench()
    bench.engine.step = lambda name: setattr(bench.ledger, "failing", Unavailable("x") if name == "stored" else None)
    with pytest.raises(Unavailable):
        await bench.engine.ask("ana", call())
    bench.ledger.failing = None
    await bench.engine.flush()
    assert len(bench.entries("outcome")) == 1
    await bench.engine.flush()
    assert len(bench.entries("outcome")) == 1


async def test_retries_are_ours_counted_and_recorded(open_bench: Open, call: Call) -> None:
    limited = ProviderError("status", "slow down", status=429, retry_after=7.0)
    bench = open_bench(BUSY, limited, "at last")
    answer = await bench.engine.ask("ana", call())
    assert answer.result.parts == (TextPart(text="at last"),)
    assert bench.waits == [0.25, 7.0]
    assert bench.entries("outcome")[0].data["folkmoot.attempts"] == 3
    assert len(bench.entries("intent")) == 1
    assert bench.observed == [("claude", "")]


async def test_attempts_end_and_the_call_may_be_asked_again(open_bench: Open, call: Call) -> None:
    bench = open_bench(BUSY, BUSY, BUSY, BUSY, "later")
    with pytest.raises(ProviderFailed) as caught:
        await bench.engine.ask("ana", call())
    assert caught.value.reason == "ProviderOverloaded"
    assert bench.providers.calls == 4
    answer = await bench.engine.ask("ana", call())
    assert answer.result.parts == (TextPart(text="later"),)
    assert [entry.data["folkmoot.run"] for entry in bench.ledger.entries] == [1, 1, 2, 2]
    assert [entry.data.get("folkmoot.outcome") for entry in bench.entries("outcome")] == ["failed", "answered"]


async def test_a_vendors_no_is_final(open_bench: Open, call: Call) -> None:
    bench = open_bench(ProviderError("status", "bad key", status=401))
    with pytest.raises(ProviderFailed) as caught:
        await bench.engine.ask("ana", call())
    assert caught.value.reason == "ProviderUnauthorized"
    assert (bench.providers.calls, bench.waits) == (1, [])
    assert bench.observed == [("claude", "ProviderUnauthorized")]
    await bench.engine.flush()
    assert "bad key" not in json.dumps([entry.model_dump() for entry in bench.ledger.entries])


async def test_a_timeout_fails_the_call_and_allows_one_repetition_on_record(open_bench: Open, call: Call) -> None:
    bench = open_bench(ProviderError("timeout", "silence"))
    for _ in range(2):
        with pytest.raises(ProviderFailed) as caught:
            await bench.engine.ask("ana", call())
        assert caught.value.reason == "ProviderTimeout"
    with pytest.raises(Conflict) as refused:
        await bench.engine.ask("ana", call())
    assert refused.value.reason == "CallInDoubt"
    assert bench.providers.calls == 2
    await bench.engine.flush()
    assert [entry.data["folkmoot.outcome"] for entry in bench.entries("outcome")] == ["in_doubt", "in_doubt"]


async def test_a_lost_reply_is_repeated_once_within_the_same_ask(open_bench: Open, call: Call) -> None:
    bench = open_bench(ProviderError("lost", "cut"), "second")
    answer = await bench.engine.ask("ana", call())
    assert answer.result.parts == (TextPart(text="second"),)
    assert [entry.type.rsplit(".", 1)[1] for entry in bench.ledger.entries] == ["intent", "outcome", "intent", "outcome"]
    assert bench.ledger.entries[1].data["folkmoot.outcome"] == "in_doubt"


async def test_a_reply_lost_twice_is_in_doubt_for_good(open_bench: Open, call: Call) -> None:
    bench = open_bench(ProviderError("lost", "cut"))
    with pytest.raises(Conflict):
        await bench.engine.ask("ana", call())
    assert bench.providers.calls == 2


async def test_a_call_in_flight_when_the_broker_ended_is_in_doubt_on_record_and_repeated_once(
    open_bench: Open, call: Call
) -> None:
    never = asyncio.Event()

    async def hang() -> str:
        await never.wait()
        return ""

    for left in (1, 2):
        bench = open_bench(hang)
        asked = asyncio.create_task(bench.engine.ask("ana", call()))
        while not bench.providers.calls:
            await asyncio.sleep(0.001)
        await bench.engine.close()
        await asyncio.gather(asked, return_exceptions=True)
        bench = open_bench("fine")
        assert await bench.engine.recover() == 1
        assert await bench.engine.recover() == 0
        await bench.engine.flush()
        assert len(bench.entries("outcome")) == left
    with pytest.raises(Conflict):
        await bench.engine.ask("ana", call())
    assert bench.entries("outcome")[0].data["folkmoot.reason"] == "BrokerInterrupted"
    assert bench.providers.calls == 0


async def test_a_repetition_after_a_crash_can_succeed(open_bench: Open, call: Call) -> None:
    bench = open_bench()
    key = call_key("ana", call())

    def die(name: str) -> None:
        if name == "sent":
            raise asyncio.CancelledError

    bench.engine.step = die
    with pytest.raises(asyncio.CancelledError):
        await bench.engine.ask("ana", call())
    bench = open_bench("recovered")
    await bench.engine.recover()
    answer = await bench.engine.ask("ana", call())
    assert answer.result.parts == (TextPart(text="recovered"),)
    assert [entry.id for entry in bench.ledger.entries] == [
        records.intent_id(key, 1), records.outcome_id(key, 1), records.intent_id(key, 2), records.outcome_id(key, 2),
    ]  # fmt: skip


async def test_an_entry_that_the_ledger_knows_otherwise_does_not_hold_up_the_others(bench: Any, call: Call) -> None:
    with pytest.raises(Forbidden):
        await bench.engine.ask("ana", call(model="claude-dear"))
    (mine,) = bench.engine.journal.due()
    bench.ledger.entries.append(mine.model_copy(update={"data": {"other": 1}}))
    bench.ledger._index[mine.id] = 0
    with pytest.raises(Forbidden):
        await bench.engine.ask("eve", call())
    await bench.engine.flush()
    assert bench.engine.journal.due() == []
    assert len(bench.ledger.entries) == 2


async def test_no_more_calls_are_in_flight_than_the_provider_allows(open_bench: Open, call: Call) -> None:
    release = asyncio.Event()

    async def slow() -> str:
        await release.wait()
        return "x"

    bench = open_bench(slow)
    asked = [asyncio.create_task(bench.engine.ask("ana", call(step=n))) for n in range(5)]
    while bench.providers.calls < 2:
        await asyncio.sleep(0.001)
    await bench.engine.flush()  # a full turn of journal and ledger: a third would have left by now
    assert bench.providers.calls == 2
    release.set()
    await asyncio.gather(*asked)
    assert bench.providers.calls == 5


async def test_the_queue_ends_at_the_deadline_and_nothing_left(open_bench: Open, call: Call) -> None:
    bench = open_bench(deadline=0.0)
    with pytest.raises(ProviderFailed) as caught:
        await bench.engine.ask("ana", call())
    assert caught.value.reason == "DeadlineExceeded"
    assert bench.providers.calls == 0


async def test_a_journal_that_cannot_be_written_lets_nothing_out(bench: Any, call: Call) -> None:
    bench.engine.journal._db.execute("PRAGMA query_only = ON")
    with pytest.raises(Unavailable) as caught:
        await bench.engine.ask("ana", call())
    assert caught.value.reason == "JournalUnavailable"
    assert bench.providers.calls == 0


async def test_an_answer_that_could_not_be_stored_leaves_the_call_in_doubt(bench: Any, call: Call) -> None:
    def disk_full(name: str) -> None:
        if name == "came back":
            bench.engine.journal._db.execute("PRAGMA query_only = ON")

    bench.engine.step = disk_full
    with pytest.raises(Unavailable):
        await bench.engine.ask("ana", call())
    bench.engine.step = lambda _: None
    bench.engine.journal._db.execute("PRAGMA query_only = OFF")
    answer = await bench.engine.ask("ana", call())
    assert not answer.stored
    assert [entry.data["folkmoot.outcome"] for entry in bench.entries("outcome")] == ["in_doubt", "answered"]


async def test_numbers_rise_over_restarts(open_bench: Open) -> None:
    assert [await open_bench().engine.number("reports") for _ in range(3)] == [1, 2, 3]


# -- erasing ------------------------------------------------------------------------------------------------------------


async def test_what_is_kept_of_a_session_is_destroyed_and_the_rest_stays(open_bench: Open, call: Call) -> None:
    bench = open_bench("an answer that nobody may read any more", "another")
    await bench.engine.ask("ana", call(text="gone"))
    await bench.engine.ask("ana", call(text="kept", session="s2"))
    recorded = [entry.model_dump() for entry in bench.ledger.entries]
    assert await bench.engine.erase(["s1", "s3"]) == 1
    assert await bench.engine.erase(["s1"]) == 0
    with pytest.raises(Conflict, match="was erased"):
        await bench.engine.ask("ana", call(text="gone"))
    with pytest.raises(Conflict, match="was erased"):
        await bench.engine.ask("ana", call(text="new", step=9))
    assert (await bench.engine.ask("ana", call(text="kept", session="s2"))).stored
    assert bench.providers.calls == 2
    intents = [entry for entry in bench.entries("model.call.intent")]
    opened = [bench.engine.journal.opening(entry.id) is not None for entry in intents]
    assert [(entry.session, has) for entry, has in zip(intents, opened, strict=True)] == [("s1", False), ("s2", True)]
    assert [entry.model_dump() for entry in bench.ledger.entries] == recorded
    again = open_bench()
    with pytest.raises(Conflict, match="was erased"):
        await again.engine.ask("ana", call(text="gone"))


async def test_no_page_keeps_a_copy(bench: Any, call: Call) -> None:
    blob = random.Random(1).randbytes(3000).hex()  # does not shrink, so that what is stored holds it in a piece
    for step in range(40):
        await bench.engine.ask("ana", call(step=step, text=f"{step} {blob}"))
    rows = [bench.engine.journal._db.execute("SELECT call FROM calls").fetchone()[0][200:260]]
    assert any(row in file.read_bytes() for row in rows for file in bench.path.parent.iterdir())
    assert await bench.engine.erase(["s1"]) == 40
    assert not any(row in file.read_bytes() for row in rows for file in bench.path.parent.iterdir())


async def test_a_call_that_is_under_way_is_waited_for(open_bench: Open, call: Call) -> None:
    reached, go = asyncio.Event(), asyncio.Event()

    async def slowly() -> str:
        reached.set()
        await go.wait()
        return "late"

    bench = open_bench(slowly)
    asking = asyncio.create_task(bench.engine.ask("ana", call()))
    await reached.wait()
    with pytest.raises(Unavailable, match="under way"):
        await bench.engine.erase(["s1"])
    with pytest.raises(Conflict, match="was erased"):  # nor does another one begin
        await bench.engine.ask("ana", call(step=1))
    go.set()
    await asking
    assert await bench.engine.erase(["s1"]) == 1
