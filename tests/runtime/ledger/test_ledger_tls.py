"""The TLS door of the real process, with a certificate from the stand-in for the operator: agents append, auditors verify."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest
from served_ledger import NAMESPACE, Tenant, served

from folkmoot_cli import verify
from folkmoot_cli.dev.stand_in import StandIn
from folkmoot_core import names
from folkmoot_core.entries import Actor, new_entry
from folkmoot_core.errors import Unauthorized, Unavailable
from folkmoot_core.ledger.audit import Report
from folkmoot_runtime.ledger.client import LedgerClient
from folkmoot_runtime.trust import Trust


@pytest.fixture
async def tenant(tmp_path: Path) -> AsyncIterator[Tenant]:
    async with served(tmp_path) as made:
        yield made


async def test_agents_append_and_an_auditor_verifies_through_the_same_door(tenant: Tenant) -> None:
    agent = tenant.client("agent-anna")
    anna = Actor(kind="agent", id="anna")
    receipts = [
        await agent.append(new_entry("tool.call.intent", anna, id=f"request-{n}", data={"n": n}, now=float(n))) for n in range(3)
    ]
    assert [r.index for r in receipts] == [1, 2, 3]
    with pytest.raises(Unauthorized, match="may not read"):
        await agent.read("checkpoint")
    await agent.aclose()

    token = tenant.token(names.SA_AUDITOR, names.AUDIENCE_LEDGER)

    def audit() -> Report:
        with verify.open_source(tenant.url, str(token), str(tenant.directory / "trust/ca.crt")) as read:
            return verify.verify(read)

    report = await asyncio.to_thread(audit)
    while report.producers["agents/anna"] < 3 or not report.types["evidence.read"]:  # until the next checkpoint covers them
        report = await asyncio.to_thread(audit)
    assert report.ok, verify.render(report)
    reads = report.types.pop("evidence.read")  # one, or two where a minute ended in between
    assert reads in (1, 2)
    assert report.types == {"log.opened": 1, "tool.call.intent": 3}


async def test_the_process_is_ready_over_tls_and_its_key_is_not_beside_the_socket(tenant: Tenant) -> None:
    agent = tenant.client("agent-anna")
    await agent.append(new_entry("tool.call.intent", Actor(kind="agent", id="anna"), id="request-1", data={}, now=1.0))
    async with httpx2.AsyncClient(verify=tenant.trust().client_context()) as client:
        assert (await client.get(f"{tenant.url}/readyz")).status_code == 200
        assert (await client.get(f"{tenant.url}/checkpoint")).status_code == 401
    keys = {path.relative_to(tenant.directory).parent.as_posix() for path in tenant.directory.rglob("tls.key")}
    assert keys == {"run/ledger-tls"}
    await agent.aclose()


async def test_a_client_that_trusts_another_authority_sends_nothing(tenant: Tenant) -> None:
    friend = tenant.client("agent-anna")
    await friend.append(new_entry("tool.call.intent", Actor(kind="agent", id="anna"), id="request-1", data={}, now=1.0))
    other = StandIn(tenant.issuer)
    other.write_trust(tenant.directory / "other")
    token = tenant.token("agent-anna", names.AUDIENCE_LEDGER)
    stranger = LedgerClient(tenant.url, token, Trust(tenant.directory / "other", NAMESPACE), 1.0)
    with pytest.raises(Unavailable):
        await stranger.append(new_entry("tool.call.intent", Actor(kind="agent", id="anna"), id="request-2", data={}, now=1.0))
    await friend.aclose()
    await stranger.aclose()
