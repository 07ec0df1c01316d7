"""The authority's directory: one process, one key, one chain that is made once, and what was given out last.

    lock        held with flock for life: a second process exits
    last.json   the last token's number and time; written before the token is given out
    chain.pem   the authority's own certificate, then its root; made at birth
    tsa.key     the key (PKCS #8), mode 0600, made at birth and last: without it there is no authority yet

The root's key is thrown away at birth: nobody, not even the authority, can make a second certificate below the root that was pinned.
Where a part is lost the process does not start: a key without its memory could date a token before one that it has given out. The
way out is a new directory, and its new chain in every Tenant that names the old one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_der_private_key

from folkmoot_core.errors import FolkmootError, Invalid
from folkmoot_core.ledger import timestamp, tsa
from folkmoot_runtime.durable import Os, RealOs, lock_directory, make_directory, refuse_shared_filesystem, replace_file

KEY: Final = "tsa.key"
CHAIN: Final = "chain.pem"
LAST: Final = "last.json"
REPAIR: Final = "Move the directory away, start with an empty one, and pin its new chain wherever the old one is pinned"


class AuthorityDamaged(FolkmootError):
    """The directory cannot be continued; the message says why and what to do."""

    reason = "AuthorityDamaged"


@dataclass(frozen=True)
class Last:
    """Number and epoch seconds of the last token that may have been given out."""

    number: int = 0
    time: int = 0


@dataclass(frozen=True)
class Birth:
    """What a new authority is made from. `random` gives numbers below 2^n."""

    name: str
    clock: Callable[[], float]
    random: Callable[[int], int]


@dataclass
class Volume:
    """An opened directory."""

    directory: Path
    calls: Os
    signer: tsa.Signer
    pem: bytes
    last: Last
    lock: int = field(repr=False)

    def remember(self, last: Last) -> None:
        """Durable on return; raises `OSError`, and then nothing may be given out."""
        replace_file(self.calls, self.directory / LAST, _encode(last))
        self.last = last

    def close(self) -> None:
        """Let another process in."""
        os.close(self.lock)


def open_volume(directory: Path, birth: Birth, calls: Os | None = None) -> Volume:
    """Lock and check the directory, or make a new authority; raises `Conflict` or `AuthorityDamaged`."""
    calls = RealOs() if calls is None else calls
    make_directory(calls, directory)
    refuse_shared_filesystem(directory)
    lock = lock_directory(directory)
    try:
        if not (directory / KEY).exists():
            _begin(directory, birth, calls)
        return _opened(directory, calls, lock)
    except BaseException:
        os.close(lock)
        raise


def _begin(directory: Path, birth: Birth, calls: Os) -> None:
    if (directory / LAST).exists() and _last(directory).number:
        raise AuthorityDamaged(f"{directory}: tokens were given out, but {KEY} is missing. {REPAIR}")
    root, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    now = datetime.fromtimestamp(birth.clock(), UTC).replace(microsecond=0)
    serials = birth.random(tsa.SERIAL_BITS) + 1, birth.random(tsa.SERIAL_BITS) + 1
    chain = tsa.make_chain(tsa.Birth(root, key, serials, birth.name, now))
    replace_file(calls, directory / LAST, _encode(Last()))
    replace_file(calls, directory / CHAIN, timestamp.Authority("own", chain).pem())
    secret = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    replace_file(calls, directory / KEY, secret, mode=0o600)


def _opened(directory: Path, calls: Os, lock: int) -> Volume:
    for name in (CHAIN, LAST):
        if not (directory / name).exists():
            raise AuthorityDamaged(f"{directory}: {KEY} is there, but {name} is missing. {REPAIR}")
    key = directory / KEY
    if key.stat().st_mode & 0o007:  # the group may be the volume's own: the kubelet gives it what fsGroup says
        raise AuthorityDamaged(f"{key} can be read by everybody; expected mode 0600. Treat it as known to others. {REPAIR}")
    try:
        private = load_der_private_key(key.read_bytes(), None)
        pem = (directory / CHAIN).read_bytes()
        chain = timestamp.read_authority("own", pem.decode("ascii")).chain
        if not isinstance(private, ec.EllipticCurvePrivateKey):
            raise Invalid(f"{key} is of another kind than this authority makes")
        signer = tsa.Signer(private, chain)
    except (ValueError, TypeError, Invalid) as error:
        why = error.message if isinstance(error, Invalid) else f"{KEY} or {CHAIN} cannot be read"
        raise AuthorityDamaged(f"{directory}: {why}. {REPAIR}") from error
    return Volume(directory, calls, signer, pem, _last(directory), lock)


def _encode(last: Last) -> bytes:
    return json.dumps({"number": last.number, "time": last.time}).encode()


def _last(directory: Path) -> Last:
    try:
        value = json.loads((directory / LAST).read_bytes())
        last = Last(int(value["number"]), int(value["time"]))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise AuthorityDamaged(f"{directory}: {LAST} cannot be read. {REPAIR}") from error
    if last.number < 0 or last.time < 0:
        raise AuthorityDamaged(f"{directory}: {LAST} has a number below zero. {REPAIR}")
    return last
