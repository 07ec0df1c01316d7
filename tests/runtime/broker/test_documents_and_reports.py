"""The tenant document while the conductor comes and goes, and what the operator is told of providers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from folkmoot_core.document import Report, TenantDocument
from folkmoot_core.errors import Invalid, Unavailable
from folkmoot_core.resources.tenant import ProviderSpec
from folkmoot_runtime.broker.documents import Documents
from folkmoot_runtime.broker.providers.registry import Files, Registry
from folkmoot_runtime.broker.reports import Reporter


class FakePeer:
    """Answers with what it is given; remembers requests."""

    def __init__(self, *answers: httpx2.Response | Exception) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, str, bytes | None, dict[str, str]]] = []

    async def request(
        self, method: str, path: str, *, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> httpx2.Response:
        self.asked.append((method, path, body, headers or {}))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def sent(document: TenantDocument, etag: str = '"1"') -> httpx2.Response:
    return httpx2.Response(200, content=document.model_dump_json(), headers={"ETag": etag})


async def test_a_document_is_kept_and_outlives_the_conductor(tmp_path: Path, document: Callable[..., TenantDocument]) -> None:
    peer: Any = FakePeer(sent(document()), httpx2.Response(304), Unavailable("away"))
    documents = Documents(peer, tmp_path / "document.json", "acme")
    documents.load()
    assert documents.current is None
    await documents.refresh()
    await documents.refresh()
    assert peer.asked[1][3] == {"If-None-Match": '"1"'}
    with pytest.raises(Unavailable):
        await documents.refresh()
    assert documents.current == document()
    restarted = Documents(peer, tmp_path / "document.json", "acme")
    restarted.load()
    assert restarted.current == document()


@pytest.mark.parametrize("wrong", [b"{}", b"no json", b""])
async def test_what_is_no_document_changes_nothing(tmp_path: Path, document: Callable[..., TenantDocument], wrong: bytes) -> None:
    peer: Any = FakePeer(sent(document()), httpx2.Response(200, content=wrong))
    documents = Documents(peer, tmp_path / "document.json", "acme")
    await documents.refresh()
    with pytest.raises(Invalid):
        await documents.refresh()
    assert documents.current == document()
    (tmp_path / "document.json").write_bytes(wrong)
    restarted = Documents(peer, tmp_path / "document.json", "acme")
    restarted.load()
    assert restarted.current is None


async def test_another_tenants_document_is_refused(tmp_path: Path, document: Callable[..., TenantDocument]) -> None:
    peer: Any = FakePeer(sent(document(tenant="beta")))
    documents = Documents(peer, tmp_path / "document.json", "acme")
    with pytest.raises(Invalid, match="beta"):
        await documents.refresh()


class Numbers:
    def __init__(self) -> None:
        self.last = 0

    async def __call__(self) -> int:
        self.last += 1
        return self.last


def make_reporter(peer: Any, tmp_path: Path, document: TenantDocument | None) -> Reporter:
    registry = Registry(Files(tmp_path / "keys", tmp_path / "ca", tmp_path / "scripts"))
    return Reporter(peer, registry, lambda: document, Numbers())


def told(peer: Any) -> list[Report]:
    return [Report.model_validate_json(body) for _, _, body, _ in peer.asked]


async def test_the_operator_is_told_on_change_and_until_it_accepts(
    tmp_path: Path, document: Callable[..., TenantDocument]
) -> None:
    peer: Any = FakePeer(httpx2.Response(503), httpx2.Response(204))
    reporter = make_reporter(peer, tmp_path, document())
    with pytest.raises(Unavailable):
        await reporter.send()
    await reporter.send()
    await reporter.send()  # nothing new
    assert [(r.sequence, r.providers[0].reason) for r in told(peer)] == [(1, "ProviderKeyMissing"), (2, "ProviderKeyMissing")]
    assert told(peer)[0].document_digest == document().digest()
    (tmp_path / "keys/claude").mkdir(parents=True)
    (tmp_path / "keys/claude/key").write_text("canary")
    await reporter.send()
    last = told(peer)[-1]
    assert (last.sequence, last.providers[0].available) == (3, True)
    assert "canary" not in last.model_dump_json()


async def test_without_a_document_there_is_nothing_to_tell(tmp_path: Path) -> None:
    peer: Any = FakePeer(httpx2.Response(204))
    await make_reporter(peer, tmp_path, None).send()
    assert peer.asked == []


async def test_a_refused_key_is_told_until_it_works_or_is_replaced(
    tmp_path: Path, document: Callable[..., TenantDocument]
) -> None:
    peer: Any = FakePeer(httpx2.Response(204))
    providers = (
        ProviderSpec(name="claude", type="Anthropic"),
        ProviderSpec(name="house", type="OpenAICompatible", base_url="http://x"),
    )
    reporter = make_reporter(peer, tmp_path, document(providers=providers))
    key = tmp_path / "keys/claude/key"
    key.parent.mkdir(parents=True)
    key.write_text("old")

    async def state() -> tuple[bool, str]:
        await reporter.send()
        report = told(peer)[-1].providers[0]
        return report.available, report.reason

    assert await state() == (True, "Usable")
    reporter.observe("claude", "ProviderUnauthorized", "no")
    assert await state() == (False, "ProviderUnauthorized")
    reporter.observe("claude", "ProviderRateLimited", "busy")  # says nothing of the key
    assert await state() == (False, "ProviderUnauthorized")
    key.write_text("new")
    assert await state() == (True, "Usable")
    reporter.observe("claude", "ProviderUnauthorized", "no")
    assert await state() == (False, "ProviderUnauthorized")
    reporter.observe("claude", "", "")
    assert await state() == (True, "Usable")
    reporter.observe("unknown", "ProviderUnauthorized", "no")
    assert await state() == (True, "Usable")
