"""The files of a log's timestamps on its volume: `checkpoints/` and `anchors/`, named by `folkmoot_core.ledger.anchor`.

Called by `anchors` in a thread, one call at a time but for `read`. The response is written last: where there is one, all that it
needs is there, durably. What a crash or a full volume left without a response proves nothing and is removed. How many are kept, and
which go: `folkmoot_core.ledger.anchoring`. Nothing here verifies; what is given is kept.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from folkmoot_core.ledger import anchor, anchoring
from folkmoot_core.ledger.anchor import Stamp
from folkmoot_runtime.durable import Os, make_directory, replace_file

CHECKPOINTS: Final = "checkpoints"
ANCHORS: Final = "anchors"
SLACK: Final = 256  # tokens of one authority between two looks at what may go
MAX_FILE: Final = 128 * 1024
_TOKEN: Final = re.compile(r"([1-9][0-9]*)\.([a-z0-9-]+)\.tsr", re.ASCII)


class AnchorFiles:
    """`directory` is the log's own."""

    def __init__(self, directory: Path, calls: Os) -> None:
        self._directory = directory
        self._calls = calls
        self._tokens: dict[str, dict[int, float]] = defaultdict(dict)  # by authority: size and when it was kept
        self._thinned: dict[str, int] = {}

    def load(self) -> None:
        """See what is there, and remove what a crash left half done."""
        make_directory(self._calls, self._directory / CHECKPOINTS)
        make_directory(self._calls, self._directory / ANCHORS)
        self._tokens.clear()
        for file in (self._directory / ANCHORS).iterdir():
            if match := _TOKEN.fullmatch(file.name):
                self._tokens[match[2]][int(match[1])] = file.stat().st_mtime
        for path in list(self._half_done()):
            self._calls.unlink(str(path))

    def newest(self, authority: str) -> int:
        """Entries below its newest token; 0 if it has none."""
        return max(self._tokens[authority], default=0)

    def certificates(self, authority: str) -> list[bytes]:
        """Every PEM file of the authority, of certificates in use and retired."""
        files = sorted((self._directory / ANCHORS).glob(f"{authority}.*.pem"))
        return [file.read_bytes() for file in files if anchor.is_path(f"{ANCHORS}/{file.name}")]

    def read(self, path: str) -> bytes | None:
        """A file by its path below the log; None for what is not there and for what no such file is called."""
        if not anchor.is_path(path):
            return None
        try:
            with (self._directory / path).open("rb") as file:
                return file.read(MAX_FILE)
        except FileNotFoundError:
            return None

    def keep(self, stamp: Stamp, contents: tuple[bytes, bytes, bytes, bytes], now: float) -> None:
        """Checkpoint, response, query and certificates of a token that verified, durable on return. Raises `OSError`."""
        signed, response, query, pem = contents
        for path, data in ((stamp.pem, pem), (stamp.checkpoint, signed), (stamp.query, query), (stamp.response, response)):
            if path == stamp.response or self.read(path) != data:
                self._write(path, data)
        tokens = self._tokens[stamp.authority]
        tokens[stamp.size] = now
        if len(tokens) >= self._thinned.get(stamp.authority, 0) + SLACK:
            self._thin(stamp.authority)

    def close(self, stamp: Stamp) -> None:
        """Name a token over a closed log's end, which no entry can. Idempotent."""
        known = anchor.read_closing(self.read(anchor.CLOSING))
        if stamp not in known:
            self._write(anchor.CLOSING, anchor.write_closing([*known, stamp]))

    def _write(self, path: str, data: bytes) -> None:
        target = self._directory / path
        try:
            replace_file(self._calls, target, data)
        except OSError:
            target.with_name(f"{target.name}.new").unlink(missing_ok=True)  # the room that is left is the log's
            raise

    def _thin(self, authority: str) -> None:
        tokens = self._tokens[authority]
        for size in sorted(anchoring.surplus(tokens.items())):
            del tokens[size]
            self._remove(f"{ANCHORS}/{size}.{authority}.tsr", f"{ANCHORS}/{size}.{authority}.tsq")
            if not any(size in others for others in self._tokens.values()):
                self._remove(f"{CHECKPOINTS}/{size}")
        self._thinned[authority] = len(tokens)

    def _remove(self, *paths: str) -> None:
        for path in paths:
            (self._directory / path).unlink(missing_ok=True)

    def _half_done(self) -> Iterator[Path]:
        sizes = {str(size) for tokens in self._tokens.values() for size in tokens}
        for file in (self._directory / CHECKPOINTS).iterdir():
            if file.name not in sizes:
                yield file
        for file in (self._directory / ANCHORS).iterdir():
            if file.suffix == ".new" or (file.suffix == ".tsq" and not file.with_suffix(".tsr").exists()):
                yield file
