"""Who the router knows, and what its records look like."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx2
import pytest

from folkmoot_core.document import AgentEntry, Identity, TenantDocument
from folkmoot_core.identity import GrantsV1
from folkmoot_core.resources import AgentSpec
from folkmoot_runtime.bus.directory import ConductorDirectory, DocumentDirectory
from folkmoot_runtime.trust import Trust


def document(*agents: str) -> TenantDocument:
    identity = Identity(name="a", scope="s", cause="I test.", seed="1" * 64, commitment="2" * 64, grants=GrantsV1())
    spec = AgentSpec.model_validate({"cause": "I test.", "model": {"provider": "p", "name": "m"}})
    entries = tuple(AgentEntry(name=name, spec=spec, identity=identity) for name in agents)
    return TenantDocument(
        tenant="acme", tenant_uid="u", namespace="folkmoot-acme", generation=1, identity=identity, agents=entries
    )


class Answering(ConductorDirectory):
    """A directory whose conductor answers from a list."""

    def __init__(self, answers: list[Any]) -> None:
        super().__init__("https://core", Path("/nowhere"), Trust(Path("/nowhere"), "n"), 1.0)
        self.answers = answers

    async def _get(self) -> httpx2.Response:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        self._looked = -1e9
        answer.request = httpx2.Request("GET", "https://core/v1/document")
        return answer  # type: ignore[no-any-return]


def test_nobody_but_the_core_at_first() -> None:
    directory = DocumentDirectory()
    assert (directory.known, directory.participants(), directory.digest()) == (False, {"core"}, "")
    assert directory.actor("core").kind == "service"
    assert directory.actor("gone").seed == ""


async def test_it_follows_and_keeps_what_it_has(caplog: pytest.LogCaptureFixture) -> None:
    full = httpx2.Response(200, content=document("athena").model_dump_json(by_alias=True), headers={"ETag": '"1"'})
    directory = Answering(
        [httpx2.ConnectError("x"), full, httpx2.Response(304), httpx2.Response(503), httpx2.Response(200, content=b"{}")]
    )
    await directory.refresh()
    assert not directory.known
    directory._looked = -1e9
    for _ in range(4):
        await directory.refresh()
        assert directory.participants() == {"core", "athena"}
    assert directory.actor("athena").commitment == "2" * 64
    assert directory.digest() == document("athena").digest()
