"""One timestamp of a log: what its `anchor` entry says, and the names of the files it speaks of. ledger.md §3.5.

Made by the ledger; read by exports, `anchored` and whoever verifies by hand. Names are made here alone, and of checked parts.

    checkpoints/<size>                       the signed checkpoint, byte for byte as it was timestamped
    anchors/<size>.<authority>.tsr           the RFC 3161 response over these bytes
    anchors/<size>.<authority>.tsq           the query that it answers
    anchors/<authority>.<12 hex>.pem         the authority's certificates then, named after the SHA-256 of this very file, which the
                                             entry has whole: those of a retired certificate stay beside those of the new one
    anchors/closing.json                     what a closed log could take no entry of: {"anchors": [...]}, each as an entry's data
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any, Final

from folkmoot_core.canonical import MAX_INTEGER, canonical_json
from folkmoot_core.errors import Invalid

CLOSING: Final = "anchors/closing.json"
MAX_CLOSING: Final = 64 * 1024
_NAME: Final = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_SIZE: Final = r"[1-9][0-9]{0,15}"
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)
_TEXTS: Final = {"root": re.compile(r"[0-9a-f]{64}", re.ASCII), "authority": re.compile(_NAME, re.ASCII), "token": _DIGEST,
                 "certificates": _DIGEST, "time": re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z", re.ASCII),
                 "policy": re.compile(r"[0-9.]{3,400}", re.ASCII)}  # fmt: skip
_PATH: Final = re.compile(
    rf"checkpoints/{_SIZE}|anchors/(?:{_SIZE}\.{_NAME}\.ts[qr]|{_NAME}\.[0-9a-f]{{12}}\.pem|closing\.json)", re.ASCII
)


@dataclass(frozen=True)
class Stamp:
    """Data of an `anchor` entry."""

    size: int
    """Entries of the checkpoint: those below it existed at `time`."""
    root: str
    authority: str
    """Its name in the tenant's terms."""
    token: str
    """`sha256:` and the digest of the response."""
    certificates: str
    """`sha256:` and the digest of the authority's PEM file."""
    time: str
    """genTime, as the authority signed it."""
    policy: str
    """Object identifier of the policy that the token was made under."""

    @property
    def entry_id(self) -> str:
        """The same whoever makes the entry again after a crash."""
        return f"anchor/{self.size}/{self.authority}"

    @property
    def checkpoint(self) -> str:
        """Path of the archived checkpoint."""
        return f"checkpoints/{self.size}"

    @property
    def response(self) -> str:
        """Path of the response."""
        return f"anchors/{self.size}.{self.authority}.tsr"

    @property
    def query(self) -> str:
        """Path of the query."""
        return f"anchors/{self.size}.{self.authority}.tsq"

    @property
    def pem(self) -> str:
        """Path of the certificates."""
        return f"anchors/{self.authority}.{self.certificates.removeprefix('sha256:')[:12]}.pem"

    @property
    def seconds(self) -> float:
        """`time` as epoch seconds."""
        return datetime.fromisoformat(self.time).timestamp()

    def paths(self) -> list[str]:
        """Every file that it speaks of."""
        return [self.checkpoint, self.response, self.query, self.pem]

    def data(self) -> dict[str, Any]:
        """For the entry."""
        return dict(vars(self))


def digest_of(content: bytes) -> str:
    """As `token` and `certificates` have it."""
    return f"sha256:{sha256(content).hexdigest()}"


def read(data: Mapping[str, Any]) -> Stamp:
    """An entry's data, every part of it checked; raises `Invalid` naming the part."""
    size = data.get("size")
    if type(size) is not int or not 0 < size <= MAX_INTEGER:
        raise Invalid("the entry names no size of a checkpoint")
    texts: dict[str, str] = {}
    for name, form in _TEXTS.items():
        value = data.get(name)
        if not isinstance(value, str) or not form.fullmatch(value):
            raise Invalid(f"the entry's {name} is not what an anchor has there")
        texts[name] = value
    try:
        datetime.fromisoformat(texts["time"])
    except ValueError as error:  # the 30th of February
        raise Invalid("the entry's time is not what an anchor has there") from error
    return Stamp(size, **texts)


def is_path(path: str) -> bool:
    """Whether a file of this kind may have this name."""
    return bool(_PATH.fullmatch(path))


def write_closing(stamps: Iterable[Stamp]) -> bytes:
    """The file `CLOSING`."""
    return canonical_json({"anchors": [stamp.data() for stamp in stamps]}) + b"\n"


def read_closing(content: bytes | None) -> list[Stamp]:
    """What a closed log has; nothing where it has no such file. Raises `Invalid`."""
    if content is None:
        return []
    if len(content) > MAX_CLOSING:
        raise Invalid(f"{CLOSING} has {len(content)} bytes; at most {MAX_CLOSING}")
    try:
        found = json.loads(content)["anchors"]
        return [read(data) for data in found]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Invalid(f"{CLOSING} is not what a closed log writes there") from error
