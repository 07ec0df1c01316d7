"""The figures held against what they must be, with a sentence from the measurement for each."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ledgering.stages import FULL, Found

TIMES = {256: 5.0, 1024: 8.0}  # of Tessera's durable append in process
REQUESTS, BULK, VERIFIED = 20_000, 150_000, 400_000  # a second
SMALL_MIB, LARGE_MIB, START_SECONDS = 100, 150, 20


@dataclass(frozen=True)
class Row:
    """One line. `met` is None where this run cannot say: its sizes are not those of the target."""

    name: str
    measured: str
    target: str
    met: bool | None
    why: str

    def line(self) -> str:
        """As Markdown."""
        verdict = {True: "met", False: "missed", None: "not judged"}[self.met]
        return f"| {self.name} | {self.measured} | {self.target} | {verdict} | {self.why} |"


NOTE = """
Medians of the rounds. Both sides answer when an entry is durable, and mean the same by it, but do not do the same for it: Tessera has
then synced tiles and tree state file by file; the ledger has synced its log, from which tiles are made again, and its next signed
checkpoint follows within a second. Tessera was given bytes and did not look for duplicates; the ledger linked each entry to the one
before it and looked for its id among all."""
HEAD = "| metric | measured | target | | why |\n|---|---|---|---|---|"


def append(batch: int, rounds: Sequence[Found]) -> Row:
    """Durable append in process; the ratio is the median of the rounds' own, as both sides of a round had the same neighbours."""
    ratio = _median(rounds, lambda one: one["ratio"])
    ours, theirs = (_median(rounds, lambda one, side=side: _rate(one[side])) for side in ("ours", "theirs"))  # type: ignore[misc]
    share, cores = (_median(rounds, lambda one, what=what: one["ours"][what]) for what in ("syncing", "cores"))  # type: ignore[misc]
    p50, p99 = (_median(rounds, lambda one, what=what: one["ours"][what]) for what in ("p50", "p99"))  # type: ignore[misc]
    each = _median(rounds, lambda one: one["ours"]["cores"] / _rate(one["ours"]) * 1e6)
    return Row(
        f"durable append in process, batch {batch}",
        f"{ratio:.1f} × Tessera ({ours:,.0f} against {theirs:,.0f} entries/s)",
        f"{TIMES[batch]:g} ×",
        ratio >= TIMES[batch],
        f"fdatasync under way {share:.0%} of the time, {each:.1f} µs of processor an entry, {cores:.2f} cores busy; a call waited p50 {p50:.1f} ms, p99 {p99:.1f} ms",
    )


def requests(rounds: Sequence[Found]) -> Row:
    """One entry in each request."""
    rate = _median(rounds, _rate)
    return Row(
        "HTTP, one entry a request, 64 connections",
        f"{rate:,.0f} requests/s, {_latency(rounds)}", f"{REQUESTS:,}/s", rate >= REQUESTS, _cores(rounds),
    )  # fmt: skip


def bulk(rounds: Sequence[Found]) -> Row:
    """Two hundred in each."""
    rate = _median(rounds, _rate)
    return Row(
        "HTTP, batches of 200, 16 connections",
        f"{rate:,.0f} entries/s, {_latency(rounds)}", f"{BULK:,}/s", rate >= BULK, _cores(rounds),
    )  # fmt: skip


def verified(rounds: Sequence[Found]) -> Row:
    """`folkmoot verify` on an export, fsck's blessing before it."""
    rate, size = _median(rounds, _rate), rounds[-1]["entries"]
    return Row(
        f"folkmoot verify, {size:,} entries", f"{rate:,.0f} entries/s", f"{VERIFIED:,}/s",
        rate >= VERIFIED if size >= FULL.small else None,
        f"{_median(rounds, lambda one: one['cores']):.2f} cores busy, start of the program included; fsck: ok",
    )  # fmt: skip


def memory(small: Found, large: Found) -> list[Row]:
    """Resident memory of the process, index of ids included."""
    grown, more = large["mib"] - small["mib"], max(1, large["entries"] - small["entries"])
    why = f"{grown * 2**20 / more:.1f} bytes for each entry between the two sizes"
    return [
        Row(
            f"RSS of the ledger, {found['entries']:,} entries", f"{found['mib']:.0f} MiB", f"{limit} MiB",
            found["mib"] <= limit if found["entries"] >= wanted else None, why,
        )
        for found, limit, wanted in ((small, SMALL_MIB, FULL.small), (large, LARGE_MIB, FULL.large))
    ]  # fmt: skip


def restarted(found: Found) -> Row:
    """Start over the whole log, until the first answer."""
    return Row(
        f"restart, {found['entries']:,} entries", f"{found['seconds']:.1f} s", f"{START_SECONDS} s",
        found["seconds"] <= START_SECONDS if found["entries"] >= FULL.large else None,
        f"{found['busy']:.1f} s of processor; every byte of the log hashed again, from the page cache; RSS afterwards {found['mib']:.0f} MiB",
    )  # fmt: skip


def _latency(rounds: Sequence[Found]) -> str:
    p50, p99 = (_median(rounds, lambda one, what=what: one[what]) for what in ("p50", "p99"))  # type: ignore[misc]
    return f"p50 {p50:.1f} ms, p99 {p99:.1f} ms"


def _cores(rounds: Sequence[Found]) -> str:
    ours, client = (_median(rounds, lambda one, what=what: one[what]) for what in ("cores", "client_cores"))  # type: ignore[misc]
    each = _median(rounds, lambda one: one["cores"] * one["seconds"] / one["entries"] * 1e6)
    return f"{each:.1f} µs of processor an entry; the ledger, one process, had {ours:.2f} cores busy, the client {client:.2f}"


def _rate(found: Found) -> float:
    return float(found["entries"] / found["seconds"])


def _median(rounds: Sequence[Found], value: Callable[[Found], float]) -> float:
    return statistics.median(value(one) for one in rounds)
