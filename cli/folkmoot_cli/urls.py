"""A log's files behind a URL. Used by `sources`, and by `ledger` for the way through kubectl; bounded in size and time."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx2

from folkmoot_cli.sources import Read, check_size, read_file
from folkmoot_core.errors import Invalid, Unauthorized, Unavailable

TIMEOUT = 30.0  # seconds that one file may take


@contextmanager
def opened(source: str, token_file: str | None, ca_file: str | None) -> Iterator[Read]:
    """A reader of the log's files below a URL."""
    parts = urlsplit(source)
    headers = {}
    if token_file is not None:
        if parts.scheme == "http" and parts.hostname not in ("127.0.0.1", "::1", "localhost"):
            raise Invalid(f"{source}: a token is sent over https only")
        headers["Authorization"] = f"Bearer {read_file(Path(token_file)).decode(errors='replace').strip()}"
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        raise Invalid(f"{ca_file}: no certificate authority can be read from it") from error
    with httpx2.Client(base_url=source.rstrip("/") + "/", headers=headers, verify=context, timeout=TIMEOUT) as client:
        yield lambda path: get(client, path)


def get(client: httpx2.Client, path: str, extensions: dict[str, str] | None = None) -> bytes | None:
    """A file below the client's base, or None where there is none."""
    try:
        with client.stream("GET", path, extensions=extensions or {}) as answer:
            if answer.status_code == httpx2.codes.NOT_FOUND:
                return None
            if answer.status_code in (httpx2.codes.UNAUTHORIZED, httpx2.codes.FORBIDDEN):
                raise Unauthorized(f"{answer.url}: {answer.status_code}; give a token with --token-file (folkmoot-auditor's)")
            if answer.status_code != httpx2.codes.OK:
                raise Unavailable(f"{answer.url} answered {answer.status_code}")
            data = bytearray()
            for chunk in answer.iter_bytes():
                data += chunk
                check_size(len(data), path)
            return bytes(data)
    except httpx2.HTTPError as error:
        raise Unavailable(f"{client.base_url}{path}: {type(error).__name__}") from error
