"""`folkmoot ledger tail|show|search`: entries for people and programs, each proved to be in the signed tree."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from folkmoot_cli import ledger
from folkmoot_cli.logfiles import Found, LogFiles
from folkmoot_cli.verify import Progress, plain, trust_of
from folkmoot_core.errors import Invalid
from folkmoot_core.ledger.coverage import moment
from folkmoot_core.ledger.scan import Entry, text

PAUSE = 2.0  # seconds between looks at a log that is followed
MAX_TEXT = 100  # characters of a field in a table
HEADER = f"{'INDEX':>9}  {'RECORDED':<27}  {'TYPE':<20}  {'BY':<20}  WHAT\n"
SHOWN = (
    "verdict", "decision", "vote", "status", "phase", "reason", "folkmoot.outcome", "folkmoot.reason", "gen_ai.tool.name",
    "gen_ai.response.model", "gen_ai.request.model", "gen_ai.agent.name", "check", "side", "exit_code", "reader", "document", "size",
)  # fmt: skip
"""Fields of `data` that say most, in this order; the first three found are shown."""


@dataclass
class Follow:
    """Waiting for a log to grow. `sleep` and `clock` are time's."""

    timeout: float = 0.0
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic

    def more(self, log: LogFiles) -> Iterator[int]:
        """Yields the size before, each time that the log has grown; ends at the timeout."""
        deadline = self.clock() + self.timeout
        while not self.timeout or self.clock() < deadline:
            before = log.point.size
            if log.refresh():
                yield before
            self.sleep(PAUSE)


@dataclass(frozen=True)
class Wanted:
    """What is searched for. Times are compared with `recordedtime`."""

    words: str = ""
    types: tuple[str, ...] = ()
    session: str = ""
    actor: str = ""
    since: datetime | None = None
    until: datetime | None = None

    def matches(self, entry: Entry) -> bool:
        """Whether the entry is meant."""
        who = text(getattr(entry.actor, "id", ""))
        kind_fits = not self.types or any(entry.kind == one or entry.kind.startswith(one + ".") for one in self.types)
        if not kind_fits or (self.session and entry.session != self.session) or (self.actor and who != self.actor):
            return False
        if self.words and not any(self.words in place for place in (entry.ce.id, entry.session, who, entry.obs.id)):
            return False
        recorded = moment(entry.ce.recordedtime) if self.since or self.until else None
        if recorded is None:
            return not (self.since or self.until)
        return (self.since is None or recorded >= self.since) and (self.until is None or recorded < self.until)


def tail(args: argparse.Namespace) -> int:
    """The last entries."""
    with ledger.opened(args) as read:
        log = LogFiles(read, trust_of(args))
        out = Screen(args.output)
        out.entries(log.entries(log.point.size - args.count, log.point.size))
        if args.follow:
            for before in Follow(args.timeout).more(log):
                out.entries(log.entries(before, log.point.size))
    return 0


def show(args: argparse.Namespace) -> int:
    """One entry, whole."""
    with ledger.opened(args) as read:
        log = LogFiles(read, trust_of(args))
        found = log.one(args.index)
    whole = whole_entry(found)
    if args.output == "json":
        sys.stdout.write(json.dumps(whole, indent=2) + "\n")
        return 0
    sys.stdout.write(f"entry {found.index} of {log.point.origin}, proved in a checkpoint over {log.point.size} entries\n")
    sys.stdout.write(f"  leaf  {found.leaf.hex()}\n")
    sys.stdout.write("".join(f"  by    {signer}\n" for signer in log.signers))
    if not log.key_given:
        sys.stdout.write("  The key was taken from the log itself; give --key to know whose log it is.\n")
    sys.stdout.write(json.dumps(whole["entry"], indent=2, ensure_ascii=False) + "\n")
    return 0


def search(args: argparse.Namespace) -> int:
    """1 when nothing was found."""
    wanted = Wanted(args.text, tuple(args.type), args.session, args.actor, stamp(args.since), stamp(args.until))
    count = 0
    progress = Progress("searching")
    with ledger.opened(args) as read:
        log = LogFiles(read, trust_of(args))
        out = Screen(args.output)
        for found in log.entries(args.first, log.point.size):
            progress(found.index + 1, log.point.size)
            if found.entry is not None and wanted.matches(found.entry):
                count += 1
                out.entry(found)
                if count >= args.limit:
                    sys.stderr.write(f"stopped after {count}; go on with --first {found.index + 1}\n")
                    break
        if not count:
            sys.stderr.write(f"nothing found among {log.point.size} entries\n")
    return 0 if count else 1


def stamp(given: str) -> datetime | None:
    """A time as people give it; a date alone is its midnight in UTC. Raises `Invalid`."""
    if not given:
        return None
    try:
        found = datetime.fromisoformat(given)
    except ValueError as error:
        raise Invalid(f"{given[:40]!r} is no time; write 2026-11-27 or 2026-11-27T10:00:00Z") from error
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def whole_entry(found: Found) -> dict[str, Any]:
    """For programs: the entry as it is, with its place."""
    try:
        value = json.loads(found.raw)
    except (ValueError, RecursionError):
        value = None
    return {"index": found.index, "leaf": found.leaf.hex(), "entry": value}


class Screen:
    """Lines for people, one JSON object per line for programs."""

    def __init__(self, form: str) -> None:
        self._form = form
        self._begun = False

    def entries(self, entries: Iterator[Found]) -> None:
        """All of these."""
        for found in entries:
            self.entry(found)

    def entry(self, found: Found) -> None:
        """One of them."""
        if self._form == "json":
            sys.stdout.write(json.dumps(whole_entry(found)) + "\n")
        else:
            sys.stdout.write(("" if self._begun else HEADER) + line(found) + "\n")
            self._begun = True
        sys.stdout.flush()


def line(found: Found) -> str:
    """One line of a table. What an entry says is not trusted to be printable."""
    entry = found.entry
    if entry is None:
        return f"{found.index:>9}  (no ledger entry, {len(found.raw)} bytes)"
    who = text(getattr(entry.actor, "id", "")) or entry.obs.id
    said = [f"{key.rsplit('.', 1)[-1]}={_short(entry.facts[key])}" for key in SHOWN if entry.facts.get(key) not in (None, "")]
    what = " ".join([*said[:3], *([f"session {entry.session}"] if entry.session else [])])
    return plain(f"{found.index:>9}  {entry.ce.recordedtime[:27]:<27}  {entry.kind[:20]:<20}  {who[:20]:<20}  {what}")


def _short(value: Any) -> str:
    said = value if isinstance(value, str) else json.dumps(value)
    return said if len(said) <= MAX_TEXT else said[: MAX_TEXT - 1] + "…"
