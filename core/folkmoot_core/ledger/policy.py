"""C2SP tlog-policy: which log's checkpoints are believed, and whose cosignatures they must carry.

    log <vkey> [url]               types 0x01 and 0x06; its key name is the log's origin
    witness <name> <vkey> [url]    types 0x04 and 0x06
    group <name> all|any|<k> <name>…
    quorum <name>|none             exactly once

Read from a file that somebody trusts, by verifiers of proofs and of logs; written beside every log of ours. Reading is strict:
what is not understood is refused, with the number of its line.

Obligations of `Policy.check`, numbered at the steps: 1. the note is well-formed, and no line of a key in the policy is false
(signed-note, Signatures); 2. a key listed as `log` signed it, under the name that the origin line has (Defining a log); 3. the
quorum is met by witnesses whose cosignatures verify (Defining the quorum). The caller still owes: that the policy is its own.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from folkmoot_core.errors import Invalid
from folkmoot_core.ledger import checkpoint, note
from folkmoot_core.ledger.checkpoint import Checkpoint
from folkmoot_core.ledger.note import COSIGNATURE, ED25519, MLDSA44, VerifierKey

NONE: Final = "none"  # the quorum that is met without a witness; never a member of a group
MAX_TEXT: Final = 512 * 1024
MAX_LINES: Final = 64  # of each kind; the specification asks for 32 at least
_LOG_TYPES: Final = (ED25519, MLDSA44)
_WITNESS_TYPES: Final = (COSIGNATURE, MLDSA44)
_THRESHOLD: Final = re.compile(r"[1-9][0-9]{0,3}", re.ASCII)
_SPACE: Final = re.compile(r"[ \t]+")


@dataclass(frozen=True)
class Log:
    """A key whose checkpoints are believed, as to who the log is."""

    key: VerifierKey
    url: str = ""


@dataclass(frozen=True)
class Witness:
    """A cosigner under its name in this policy, which need not be its key's name."""

    name: str
    key: VerifierKey
    url: str = ""


@dataclass(frozen=True)
class Group:
    """Has witnessed what at least `threshold` of its members have: witnesses, or groups before it."""

    name: str
    threshold: int
    members: tuple[str, ...]


@dataclass(frozen=True)
class Policy:
    """What a checkpoint must be signed with. Made by `parse`, or from parts by whoever writes the file."""

    logs: tuple[Log, ...] = ()
    witnesses: tuple[Witness, ...] = ()
    groups: tuple[Group, ...] = ()
    quorum: str = NONE

    def text(self) -> str:
        """The file; raises `Invalid` for parts that `parse` would refuse."""
        lines = [f"log {log.key.vkey()} {log.url}".rstrip() for log in self.logs]
        lines += [f"witness {each.name} {each.key.vkey()} {each.url}".rstrip() for each in self.witnesses]
        lines += [f"group {group.name} {group.threshold} {' '.join(group.members)}" for group in self.groups]
        text = "\n".join([*lines, f"quorum {self.quorum}"]) + "\n"
        parse(text)
        return text

    def check(self, data: bytes) -> Checkpoint:
        """Check obligations 1-3 on a signed checkpoint and return it; raises `Invalid`."""
        opened = note.open_note(data, [*(log.key for log in self.logs), *(each.key for each in self.witnesses)])  # 1
        found = checkpoint.parse(opened.text)
        if not any(log.key in opened.signers and log.key.name == found.origin for log in self.logs):  # 2
            listed = ", ".join(sorted({log.key.name for log in self.logs})) or "none"
            raise Invalid(f"checkpoint of {found.origin[:80]!r} is not signed by a log of the policy ({listed})")
        signed = frozenset(each.name for each in self.witnesses if each.key in opened.signers)
        if not self.met(signed):  # 3
            raise Invalid(
                f"checkpoint of {found.origin[:80]!r} over {found.size} entries is cosigned by "
                f"{', '.join(sorted(signed)) or 'no witness of the policy'}; the policy's quorum is {self.quorum!r}"
            )
        return found

    def met(self, signed: frozenset[str]) -> bool:
        """Whether cosignatures of these witnesses are enough."""
        witnessed = {NONE, *(each.name for each in self.witnesses if each.name in signed)}
        for group in self.groups:  # each refers to what stands before it
            if sum(member in witnessed for member in group.members) >= group.threshold:
                witnessed.add(group.name)
        return self.quorum in witnessed


def parse(text: str) -> Policy:
    """The policy in a file's text; raises `Invalid`, naming the line."""
    if len(text) > MAX_TEXT:
        raise Invalid(f"policy has {len(text)} characters; at most {MAX_TEXT}")
    if text and not text.endswith("\n"):
        raise Invalid("policy: the last line is not ended by a line feed: the file was cut off")
    reader = _Reader()
    for number, line in enumerate(text.split("\n"), 1):
        try:
            reader.take(line)
        except Invalid as error:
            raise Invalid(f"policy, line {number}: {error.message}") from error
    return reader.end()


class _Reader:
    """Takes the lines in order."""

    def __init__(self) -> None:
        self._logs: list[Log] = []
        self._witnesses: list[Witness] = []
        self._groups: list[Group] = []
        self._names: set[str] = set()
        self._members: set[str] = set()
        self._quorum: str | None = None

    def take(self, line: str) -> None:
        if any((c < " " and c != "\t") or c == "\x7f" for c in line):
            raise Invalid("contains control characters other than tabs")
        words = [word for word in _SPACE.split(line) if word]
        if not words or words[0].startswith("#"):
            return
        match words:
            case ["log", vkey] | ["log", vkey, _]:
                self._log(vkey, "".join(words[2:]))
            case ["witness", name, vkey] | ["witness", name, vkey, _]:
                self._witness(name, vkey, "".join(words[3:]))
            case ["group", name, threshold, *members] if members:
                self._group(name, threshold, tuple(members))
            case ["quorum", name]:
                self._take_quorum(name)
            case _:
                raise Invalid(
                    f"expected 'log <vkey> [url]', 'witness <name> <vkey> [url]', 'group <name> all|any|<k> <name>…' "
                    f"or 'quorum <name>|none', found {' '.join(words)[:60]!r}"
                )

    def end(self) -> Policy:
        if self._quorum is None:
            raise Invalid("policy has no quorum line; write 'quorum none' to ask for no cosignatures")
        return Policy(tuple(self._logs), tuple(self._witnesses), tuple(self._groups), self._quorum)

    def _log(self, vkey: str, url: str) -> None:
        self._logs.append(Log(self._key(vkey, _LOG_TYPES, "log"), url))
        _check_count(self._logs, "log")

    def _witness(self, name: str, vkey: str, url: str) -> None:
        self._define(name)
        self._witnesses.append(Witness(name, self._key(vkey, _WITNESS_TYPES, "witness"), url))
        _check_count(self._witnesses, "witness")

    def _group(self, name: str, threshold: str, members: tuple[str, ...]) -> None:
        for member in members:
            if member not in self._names:
                raise Invalid(f"group {name[:60]!r}: {member[:60]!r} is neither a witness nor a group defined before it")
            if member in self._members:
                raise Invalid(f"{member[:60]!r} is a member of a group already; it would count twice")
            self._members.add(member)
        self._define(name)
        self._groups.append(Group(name, _threshold(name, threshold, len(members)), members))
        _check_count(self._groups, "group")

    def _take_quorum(self, name: str) -> None:
        if self._quorum is not None:
            raise Invalid("a second quorum line; there must be exactly one")
        if name != NONE and name not in self._names:
            raise Invalid(f"quorum {name[:60]!r} is neither a witness nor a group defined before it, nor 'none'")
        self._quorum = name

    def _define(self, name: str) -> None:
        if name == NONE or name in self._names:
            raise Invalid(f"name {name[:60]!r} is {'reserved' if name == NONE else 'defined already'}")
        self._names.add(name)

    def _key(self, vkey: str, types: Sequence[int], what: str) -> VerifierKey:
        key = note.parse_vkey(vkey)
        if key.algorithm not in types:
            expected = " or ".join(f"{kind:02x}" for kind in types)
            raise Invalid(f"a {what}'s key is of type {expected}; that of {key.name} is of type {key.algorithm:02x}")
        listed = [*(log.key for log in self._logs), *(each.key for each in self._witnesses)]
        # Across both kinds: a log that is its own witness would meet the quorum alone.
        if key.public in (other.public for other in listed):
            raise Invalid(f"the key of {key.name} is listed already, perhaps under another name")
        return key


def _threshold(name: str, text: str, members: int) -> int:
    if text in ("all", "any"):
        return members if text == "all" else 1
    if not _THRESHOLD.fullmatch(text) or int(text) > members:
        raise Invalid(f"group {name[:60]!r}: expected 'all', 'any' or a number from 1 to {members}, found {text[:20]!r}")
    return int(text)


def _check_count(lines: Sequence[object], what: str) -> None:
    if len(lines) > MAX_LINES:
        raise Invalid(f"more than {MAX_LINES} {what} lines")
