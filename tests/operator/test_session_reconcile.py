"""A Session is handed over once, reports decide how it stands, and what is deleted is cancelled, even while no operator ran."""

from __future__ import annotations

import pytest

from folkmoot_core.document import SessionReport
from folkmoot_core.errors import Conflict, Invalid, Unavailable
from folkmoot_operator.kinds import CONFIG_MAP, SESSION, Key, uid_of
from folkmoot_operator.reconcile import Ref
from folkmoot_operator.reconcile.session import progress

NS = "folkmoot-acme"


@pytest.fixture
async def tenant(world):
    await world.tenant()
    await world.settle()
    await world.agent()
    await world.ready()
    world.conductor.calls.clear()
    return world


async def ended(world, phase="Succeeded", **more):
    session = world.kube.peek(SESSION, "s1", NS)
    report = SessionReport(
        uid=uid_of(session), name="s1", generation=1, sequence=9, phase=phase, started="2026-01-01T00:00:00Z",
        finished="2026-01-01T00:04:12Z", **more,
    )  # fmt: skip
    await world.reports.session(NS, report)
    await world.settle()


async def test_handed_over_once_and_ready_when_accepted(tenant):
    await tenant.session()
    await tenant.settle()
    uid = uid_of(tenant.kube.peek(SESSION, "s1", NS))
    assert tenant.conductor.orders["acme", uid].spec.task == "Say hello."
    assert tenant.condition(SESSION, "s1", "Ready", NS)["status"] == "True"
    assert tenant.kube.peek(SESSION, "s1", NS)["status"]["phase"] == "Pending"
    tenant.conductor.calls.clear()
    tenant.kube.calls.clear()
    tenant.start()
    await tenant.settle()
    assert tenant.conductor.calls == []
    assert tenant.kube.writes == []


async def test_the_end_is_a_condition(tenant):
    await tenant.session()
    await tenant.settle()
    await ended(tenant, result_preview="x" * 5000, gate_verdict="Approve", input_tokens=5)
    session = tenant.kube.peek(SESSION, "s1", NS)
    assert tenant.condition(SESSION, "s1", "Succeeded", NS)["status"] == "True"
    assert tenant.condition(SESSION, "s1", "GatePassed", NS)["status"] == "True"
    assert session["status"]["duration"] == "4m12s"
    assert len(session["status"]["result"]["preview"]) == 1024
    assert session["status"]["usage"]["inputTokens"] == 5


async def test_a_session_waits_for_its_target_and_its_inputs(tenant):
    await tenant.session(target={"kind": "Agent", "name": "later"}, inputs=[{"name": "in", "configMapRef": {"name": "cm"}}])
    await tenant.settle()
    message = tenant.condition(SESSION, "s1", "ResolvedRefs", NS)["message"]
    assert "later" in message
    assert "cm" in message
    await tenant.agent("later")
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "cm", "namespace": NS}, "data": {"a": "text"}}
    await tenant.kube.create(CONFIG_MAP, body)
    await tenant.settle()
    order = next(iter(tenant.conductor.orders.values()))
    assert order.inputs == {"in": {"a": "dGV4dA=="}}


async def test_a_session_made_before_the_tenant_is_ready_is_handed_over_later(world):
    await world.tenant()
    await world.settle()
    await world.agent()
    await world.session()
    await world.settle()
    assert world.condition(SESSION, "s1", "Accepted", NS)["reason"] == "WaitingForTenant"
    await world.pods_run()
    await world.settle()
    assert world.condition(SESSION, "s1", "Accepted", NS)["status"] == "True"


@pytest.mark.parametrize(("error", "retried"), [(Unavailable("down"), True), (Invalid("no"), False), (Conflict("other"), False)])
async def test_refusals_react_by_the_table(tenant, error, retried):
    tenant.conductor.fail("put_session", error)
    await tenant.session()
    await tenant.run(Ref("Session", NS, "s1"))
    assert (Ref("Session", NS, "s1") in tenant.retries) is retried
    assert tenant.condition(SESSION, "s1", "Ready", NS)["status"] == "False"


async def test_a_changed_spec_is_handed_over_again(tenant):
    await tenant.session()
    await tenant.settle()
    await tenant.kube.patch(SESSION, Key(NS, "s1"), {"spec": {"task": "Say more."}})
    await tenant.settle()
    assert next(iter(tenant.conductor.orders.values())).spec.task == "Say more."
    assert tenant.conductor.calls.count(("put_session", "acme")) == 2


async def test_deleting_a_running_session_cancels_it_until_the_conductor_knows(tenant):
    await tenant.session()
    await tenant.settle()
    uid = uid_of(tenant.kube.peek(SESSION, "s1", NS))
    tenant.conductor.fail("cancel", Unavailable("down"))
    await tenant.kube.delete(SESSION, Key(NS, "s1"))
    await tenant.settle()
    assert tenant.conductor.cancelled == []
    await tenant.retry()
    assert tenant.conductor.cancelled == [("acme", uid)]


async def test_one_that_has_ended_is_not_cancelled(tenant):
    await tenant.session()
    await tenant.settle()
    await ended(tenant)
    await tenant.kube.delete(SESSION, Key(NS, "s1"))
    await tenant.settle()
    assert tenant.conductor.cancelled == []


async def test_one_deleted_while_no_operator_ran_is_cancelled_by_the_sweep(tenant):
    await tenant.session()
    await tenant.settle()
    uid = uid_of(tenant.kube.peek(SESSION, "s1", NS))
    tenant.kube.lose_events(1)
    await tenant.kube.delete(SESSION, Key(NS, "s1"))
    tenant.start()
    tenant.enqueue(Ref("Sweep", "", "acme"))
    await tenant.settle()
    assert tenant.conductor.cancelled == [("acme", uid)]


async def test_one_that_the_conductor_lost_is_handed_over_again_by_the_sweep(tenant):
    await tenant.session()
    await tenant.settle()
    tenant.conductor.reports.clear()
    tenant.enqueue(Ref("Sweep", "", "acme"))
    await tenant.settle()
    assert len(tenant.conductor.reports) == 1
    assert tenant.condition(SESSION, "s1", "Accepted", NS)["status"] == "True"


async def test_time_to_live_counts_from_the_end(tenant):
    await tenant.session(ttlSecondsAfterFinished=600)
    await tenant.settle()
    await ended(tenant)
    assert tenant.answers[Ref("Session", NS, "s1")].after == pytest.approx(600 + 252)
    tenant.epoch += 853
    await tenant.again()
    assert tenant.kube.peek(SESSION, "s1", NS) is None
    assert tenant.conductor.cancelled == []


def test_conditions_that_follow_from_reports():
    def found(**status):
        return {c.type: (c.status, c.reason) for c in progress(status)}

    assert found() == {}
    assert found(phase="Failed", reason="LimitReached")["Succeeded"] == ("False", "LimitReached")
    assert found(phase="Failed", reason="LimitReached")["BudgetBlocked"] == ("True", "LimitReached")
    assert found(phase="AwaitingApproval")["AwaitingApproval"][0] == "True"
    assert found(phase="Running", gate={"verdict": "Revise"})["GatePassed"] == ("False", "Revise")
    assert found(phase="Running", reason="not a word")["Succeeded"] == ("Unknown", "Running")
