"""Provider objects over time: keys read anew, old ones closed when unused, files missing or wrong, what leaves with a redirect."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from folkmoot_core.calls import Message, ModelRequest, OutputSchema, TextPart
from folkmoot_core.resources.common import ConfigMapKeyRef, SecretKeyRef
from folkmoot_core.resources.tenant import ProviderSpec
from folkmoot_runtime.broker.providers import transport
from folkmoot_runtime.broker.providers.interface import ProviderError, Secret
from folkmoot_runtime.broker.providers.registry import Files, Registry, Unusable
from folkmoot_runtime.broker.providers.smallest import smallest

ASK = ModelRequest(messages=(Message(role="user", parts=(TextPart(text="hi"),)),))
REF = SecretKeyRef(name="vendor", key="api-key")


@pytest.fixture
async def registry(tmp_path: Path) -> AsyncIterator[Registry]:
    made = Registry(Files(tmp_path / "keys", tmp_path / "ca", tmp_path / "scripts"))
    yield made
    await made.aclose()


def put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


class Vendor:
    """Answers every request with fixed bytes and remembers what it was sent."""

    def __init__(self, answer: bytes) -> None:
        self.answer, self.seen = answer, b""
        self.port = 0

    async def __aenter__(self) -> Vendor:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.seen += await reader.read(65536)
        writer.write(self.answer)
        try:
            await writer.drain()
        except ConnectionError:
            pass
        writer.close()


async def test_a_new_key_is_used_at_the_next_call_and_the_old_pool_closes_after_its_last(
    registry: Registry, tmp_path: Path
) -> None:
    spec = ProviderSpec(name="p", type="OpenAICompatible", base_url="http://127.0.0.1:1")
    put(tmp_path / "keys/p/key", "one\n")
    async with registry.use(spec) as first:
        put(tmp_path / "keys/p/key", "two\n")
        async with registry.use(spec) as second:
            assert second is not first
        assert not first._client._client.is_closed  # type: ignore[attr-defined]  # still in use
    assert first._client._client.is_closed  # type: ignore[attr-defined]
    async with registry.use(spec) as third:
        assert third is second


@pytest.mark.parametrize(
    ("spec", "reason", "says"),
    [
        (ProviderSpec(name="p", type="Anthropic", api_key_secret_ref=REF), "ProviderKeyMissing", "api-key of Secret vendor"),
        (ProviderSpec(name="p", type="Google"), "ProviderKeyMissing", "no apiKeySecretRef"),
        (
            ProviderSpec(name="p", type="OpenAICompatible", base_url="http://x", api_key_secret_ref=REF),
            "ProviderKeyMissing",
            "create it",
        ),
        (
            ProviderSpec(name="p", type="OpenAICompatible", base_url="http://x", ca_bundle=ConfigMapKeyRef(name="c", key="k")),
            "CABundleMissing",
            "key k of ConfigMap c",
        ),
        (ProviderSpec(name="p", type="Scripted", script=ConfigMapKeyRef(name="c", key="k")), "ScriptMissing", "ConfigMap c"),
    ],
)
async def test_what_is_missing_is_named(registry: Registry, spec: ProviderSpec, reason: str, says: str) -> None:
    found = registry.unusable(spec)
    assert found is not None
    assert (found.reason, says in found.message) == (reason, True)
    assert registry.fingerprint(spec) == ""
    with pytest.raises(Unusable):
        async with registry.use(spec):
            pass


async def test_a_server_of_ones_own_needs_no_key(registry: Registry) -> None:
    spec = ProviderSpec(name="p", type="OpenAICompatible", base_url="http://127.0.0.1:1")
    assert registry.unusable(spec) is None
    assert registry.fingerprint(spec)


async def test_a_bundle_that_is_none_is_told(registry: Registry, tmp_path: Path) -> None:
    put(tmp_path / "ca/p/ca.crt", "not PEM")
    spec = ProviderSpec(name="p", type="OpenAICompatible", base_url="https://127.0.0.1:1")
    with pytest.raises(Unusable) as caught:
        async with registry.use(spec):
            pass
    assert caught.value.reason == "CABundleInvalid"


async def test_a_fingerprint_changes_with_the_key_and_says_nothing_of_it(registry: Registry, tmp_path: Path) -> None:
    spec = ProviderSpec(name="p", type="OpenAICompatible", base_url="http://x")
    put(tmp_path / "keys/p/key", "canary-1")
    before = registry.fingerprint(spec)
    put(tmp_path / "keys/p/key", "canary-2")
    assert registry.fingerprint(spec) != before
    assert "canary" not in before
    assert "canary" not in repr(Secret("canary")) + str(Secret("canary"))


@pytest.mark.parametrize("kind", ["Anthropic", "OpenAI", "Google", "Mistral"])
async def test_a_redirect_is_not_followed_and_takes_no_key_along(registry: Registry, tmp_path: Path, kind: Any) -> None:
    put(tmp_path / "keys/p/key", "canary-key")
    async with Vendor(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}") as elsewhere:
        place = f"location: http://127.0.0.1:{elsewhere.port}/\r\n".encode()
        async with Vendor(b"HTTP/1.1 307 Temporary Redirect\r\ncontent-length: 0\r\n" + place + b"\r\n") as vendor:
            spec = ProviderSpec(name="p", type=kind, base_url=f"http://127.0.0.1:{vendor.port}")
            async with registry.use(spec) as provider:
                with pytest.raises(ProviderError) as caught:
                    await provider.complete("m", ASK, 5.0)
        assert (caught.value.fault, caught.value.status) == ("status", 307)
        assert b"canary-key" in vendor.seen
        assert elsewhere.seen == b""


@pytest.mark.parametrize("kind", ["Anthropic", "OpenAI", "Google", "Mistral"])
async def test_an_answer_without_end_is_cut_off(registry: Registry, tmp_path: Path, kind: Any) -> None:
    put(tmp_path / "keys/p/key", "k")
    head = f"HTTP/1.1 200 OK\r\ncontent-length: {transport.MAX_ANSWER + 2}\r\ncontent-type: application/json\r\n\r\n".encode()
    async with Vendor(head + b" " * (transport.MAX_ANSWER + 2)) as vendor:
        spec = ProviderSpec(name="p", type=kind, base_url=f"http://127.0.0.1:{vendor.port}")
        async with registry.use(spec) as provider:
            with pytest.raises(ProviderError) as caught:
                await provider.complete("m", ASK, 20.0)
    assert caught.value.fault == "lost"


async def test_half_a_surrogate_in_an_answer_does_not_lose_it(registry: Registry, tmp_path: Path) -> None:
    put(tmp_path / "keys/p/key", "k")
    body = rb'{"choices":[{"message":{"content":"a\ud800b"},"finish_reason":"stop"}],"model":"m"}'
    async with Vendor(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body) as vendor:
        spec = ProviderSpec(name="p", type="Mistral", base_url=f"http://127.0.0.1:{vendor.port}")
        async with registry.use(spec) as provider:
            result = await provider.complete("m", ASK, 5.0)
    assert b"a?b" in result.model_dump_json().encode()


async def test_an_sdk_takes_nothing_out_of_the_environment(registry: Registry, tmp_path: Path) -> None:
    """Keys, addresses and organisations of the process's own environment must not reach a tenant's vendor."""
    put(tmp_path / "keys/p/key", "k")
    script = (
        "import asyncio, sys; from pathlib import Path\n"
        "from folkmoot_runtime.broker.providers.registry import Files, Registry\n"
        "from folkmoot_core.resources.tenant import ProviderSpec\n"
        "async def main():\n"
        "    r = Registry(Files(Path(sys.argv[1]), Path('/none'), Path('/none')))\n"
        "    for kind, attr in (('Anthropic', '_client'), ('OpenAI', '_client')):\n"
        "        async with r.use(ProviderSpec(name='p', type=kind)) as p:\n"
        "            c = p._client; print(c.base_url, c.api_key, getattr(c, 'organization', ''), getattr(c, 'auth_token', ''))\n"
        "    await r.aclose()\n"
        "asyncio.run(main())\n"
    )
    environment = {
        "PYTHONPATH": ":".join(sys.path), "ANTHROPIC_API_KEY": "leak", "ANTHROPIC_BASE_URL": "http://leak", "OPENAI_API_KEY": "leak",
        "ANTHROPIC_AUTH_TOKEN": "leak", "OPENAI_BASE_URL": "http://leak", "OPENAI_ORG_ID": "leak", "OPENAI_PROJECT_ID": "leak",
    }  # fmt: skip
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, str(tmp_path / "keys"), env=environment, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    assert process.returncode == 0
    assert b"api.anthropic.com" in output
    assert b"leak" not in output


async def test_scripted_without_a_script_fills_any_schema(registry: Registry) -> None:
    import jsonschema

    schema: dict[str, Any] = {
        "type": "object",
        "properties": {
            "verdict": {"enum": ["approve", "revise"]}, "n": {"type": "integer", "minimum": 2}, "ok": {"type": "boolean"},
            "why": {"type": "string", "minLength": 12}, "items": {"type": "array", "items": {"$ref": "#/$defs/i"}, "minItems": 1},
            "maybe": {"anyOf": [{"type": "null"}, {"type": "string"}]}, "kind": {"const": "x"},
        },
        "required": ["verdict", "n", "ok", "why", "items", "maybe", "kind"], "additionalProperties": False,
        "$defs": {"i": {"type": "object", "properties": {"t": {"type": "string", "maxLength": 3}}, "required": ["t"]}},
    }  # fmt: skip
    jsonschema.validate(smallest(schema), schema)
    async with registry.use(ProviderSpec(name="p", type="Scripted")) as provider:
        result = await provider.complete("m", ASK.model_copy(update={"output": OutputSchema(name="v", json_schema=schema)}), 1.0)
        assert isinstance(result.parts[0], TextPart)
        assert '"approve"' in result.parts[0].text
        plain = await provider.complete("m", ASK, 1.0)
        assert "no script" in plain.parts[0].text  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("script", "says"),
    [("rules: [", "not YAML"), ("rules: [{reply: {txt: x}}]", "rules.0.reply"), ("hello", "Script"), ("rules: 7", "rules")],
)
async def test_a_script_that_is_wrong_names_the_place(registry: Registry, tmp_path: Path, script: str, says: str) -> None:
    put(tmp_path / "scripts/p/script.yaml", script)
    with pytest.raises(ProviderError) as caught:
        async with registry.use(ProviderSpec(name="p", type="Scripted")):
            pass
    assert says in caught.value.message


async def test_a_scripts_captures_fill_its_replies(registry: Registry, tmp_path: Path) -> None:
    put(
        tmp_path / "scripts/p/script.yaml",
        "rules: [{when: {last_user: 're:(?P<who>h.)'}, reply: {json: {a: ['${who} ${none}']}}}]",
    )
    async with registry.use(ProviderSpec(name="p", type="Scripted")) as provider:
        result = await provider.complete("m", ASK, 1.0)
    assert result.parts == (TextPart(text='{"a":["hi ${none}"]}'),)
