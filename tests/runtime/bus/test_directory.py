"""Who the router knows, and what its records look like."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from folkmoot_core.document import AgentEntry, Identity, TenantDocument
from folkmoot_core.errors import Unavailable
from folkmoot_core.identity import GrantsV1
from folkmoot_core.resources import AgentSpec
from folkmoot_runtime.bus.directory import ConductorDirectory, DocumentDirectory


def document(*agents: str) -> TenantDocument:
    identity = Identity(name="a", scope="s", cause="I test.", seed="1" * 64, commitment="2" * 64, grants=GrantsV1())
    spec = AgentSpec.model_validate({"cause": "I test.", "model": {"provider": "p", "name": "m"}})
    entries = tuple(AgentEntry(name=name, spec=spec, identity=identity) for name in agents)
    return TenantDocument(
        tenant="acme", tenant_uid="u", namespace="folkmoot-acme", generation=1, identity=identity, agents=entries
    )


class Answering:
    """A conductor that answers from a list."""

    def __init__(self, answers: list[httpx2.Response | Unavailable]) -> None:
        self.answers = answers

    async def request(self, method: str, path: str, **_: Any) -> httpx2.Response:
        answer = self.answers.pop(0)
        if isinstance(answer, Unavailable):
            raise answer
        return answer


def test_nobody_but_the_core_at_first() -> None:
    directory = DocumentDirectory()
    assert (directory.known, directory.participants(), directory.digest()) == (False, {"core"}, "")
    assert directory.actor("core").kind == "service"
    assert directory.actor("gone").seed == ""


async def test_it_follows_and_keeps_what_it_has(caplog: pytest.LogCaptureFixture) -> None:
    full = httpx2.Response(200, content=document("athena").model_dump_json(by_alias=True), headers={"ETag": '"1"'})
    conductor: Any = Answering(
        [Unavailable("x"), full, httpx2.Response(304), httpx2.Response(503), httpx2.Response(200, content=b"{}")]
    )
    directory = ConductorDirectory(conductor)
    await directory.refresh()
    assert not directory.known
    for _ in range(4):
        directory._looked = -1e9
        await directory.refresh()
        assert directory.participants() == {"core", "athena"}
    assert directory.actor("athena").commitment == "2" * 64
    assert directory.digest() == document("athena").digest()
