"""Which file serves which type, imported on first use, and the live provider objects with their connection pools.

The key file is read at each call, so that a rotated key needs no restart; a provider object is kept while key, CA bundle,
script and spec are the same, and closed when the last call on the old one has ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx2

from folkmoot_core.canonical import sha256_hex
from folkmoot_core.resources.common import seconds
from folkmoot_core.resources.tenant import ProviderSpec
from folkmoot_runtime.broker.providers import transport
from folkmoot_runtime.broker.providers.interface import Build, Provider, ProviderError, Secret, Target

MODULES: Final[dict[str, str]] = {
    "Anthropic": "anthropic", "OpenAI": "openai", "Google": "google", "DeepSeek": "openai_chat", "Mistral": "openai_chat",
    "OpenAICompatible": "openai_chat", "Scripted": "scripted",
}  # fmt: skip
MAX_FILE = 1024 * 1024  # bytes of a key, a CA bundle or a script
NO_KEY = "none"  # what a server without keys is sent, because the SDKs insist on one


class Unusable(Exception):
    """The provider cannot be called as things are: a CamelCase reason and a sentence that holds no content."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


@dataclass(frozen=True)
class Files:
    """Where the operator mounts what belongs to a provider, each in a directory of the provider's name."""

    keys: Path
    """`<provider>/key`: the API key, from the tenant's Secret; optional."""
    authorities: Path
    """`<provider>/ca.crt`: PEM bundle of a self-hosted server; optional."""
    scripts: Path
    """`<provider>/script.yaml`: answers of a Scripted provider; optional."""


@dataclass
class _Live:
    stamp: tuple[str, ...]
    provider: Provider
    http: httpx2.AsyncClient
    users: int = 0
    retired: bool = False

    async def close_if_unused(self) -> None:
        if self.retired and self.users == 0:
            await self.http.aclose()


class Registry:
    """Provider objects by provider name."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._live: dict[str, _Live] = {}
        self._making = asyncio.Lock()

    @contextlib.asynccontextmanager
    async def use(self, spec: ProviderSpec) -> AsyncIterator[Provider]:
        """The provider object for a spec as its files are now; raises `Unusable` or `ProviderError`."""
        live = await self._current(spec)
        live.users += 1
        try:
            yield live.provider
        finally:
            live.users -= 1
            await live.close_if_unused()

    def unusable(self, spec: ProviderSpec) -> Unusable | None:
        """Why this provider cannot be called, looking at its files alone."""
        try:
            self._read(spec)
        except Unusable as reason:
            return reason
        return None

    def fingerprint(self, spec: ProviderSpec) -> str:
        """Changes when the spec or a file of the provider does; '' while it cannot be called. Holds nothing of a key."""
        try:
            return sha256_hex("\n".join(_stamp(spec, self._read(spec))).encode())
        except Unusable:
            return ""

    async def aclose(self) -> None:
        """Close every pool."""
        for live in self._live.values():
            await live.http.aclose()
        self._live.clear()

    async def _current(self, spec: ProviderSpec) -> _Live:
        key, ca, script = self._read(spec)
        stamp = _stamp(spec, (key, ca, script))
        async with self._making:  # two first calls must not import and build twice
            known = self._live.get(spec.name)
            if known is not None and known.stamp == stamp:
                return known
            # An SDK takes a second to import; in a thread, so that calls to other providers go on meanwhile.
            module = await asyncio.to_thread(importlib.import_module, f"{__package__}.{MODULES[spec.type]}")
            build: Build = module.build
            try:
                http = transport.client(ca=ca, timeout=float(seconds(spec.timeout)))
            except (ssl.SSLError, ValueError):
                raise Unusable("CABundleInvalid", f"CA bundle of provider {spec.name} is not PEM certificates") from None
            target = Target(spec.name, spec.type, spec.base_url or "", Secret(key), http, script)
            try:
                live = _Live(stamp, build(target), http)
            except ProviderError:
                await http.aclose()
                raise
            self._live[spec.name] = live
        if known is not None:
            known.retired = True
            await known.close_if_unused()
        return live

    def _read(self, spec: ProviderSpec) -> tuple[str, str, str]:
        """Key, CA bundle and script of a provider, as they are now."""
        key = _text(self._files.keys / spec.name / "key").strip()
        needs_key = spec.type != "Scripted" and (spec.api_key_secret_ref is not None or not spec.base_url)
        if needs_key and not key:
            reference = spec.api_key_secret_ref
            where = f"key {reference.key} of Secret {reference.name}" if reference else "no apiKeySecretRef"
            raise Unusable(
                "ProviderKeyMissing", f"provider {spec.name} has no API key ({where}); create it in the tenant's namespace"
            )
        script = _text(self._files.scripts / spec.name / "script.yaml")
        if spec.script is not None and not script:
            found = f"key {spec.script.key} of ConfigMap {spec.script.name}"
            raise Unusable("ScriptMissing", f"provider {spec.name} has no script ({found}); create it in the tenant's namespace")
        ca = _text(self._files.authorities / spec.name / "ca.crt")
        if spec.ca_bundle is not None and not ca:
            found = f"key {spec.ca_bundle.key} of ConfigMap {spec.ca_bundle.name}"
            raise Unusable(
                "CABundleMissing", f"provider {spec.name} has no CA bundle ({found}); create it in the tenant's namespace"
            )
        return key or NO_KEY, ca, script


def _stamp(spec: ProviderSpec, texts: tuple[str, str, str]) -> tuple[str, ...]:
    return (spec.model_dump_json(), *(sha256_hex(text.encode()) for text in texts))


def _text(path: Path) -> str:
    """A small mounted file, '' when it is not there."""
    try:
        if path.stat().st_size > MAX_FILE:
            raise Unusable("FileTooLarge", f"{path} is larger than {MAX_FILE} bytes")
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise Unusable("FileUnreadable", f"{path} cannot be read: {type(error).__name__}") from None
