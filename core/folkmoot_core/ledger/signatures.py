"""Who signed a log's checkpoint: which keys are known, what the log's own entries say of them, and its witnesses. For `audit`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from folkmoot_core.entries import rfc3339
from folkmoot_core.errors import FolkmootError, Invalid, Missing
from folkmoot_core.ledger import checkpoint, cosignature, note, policy, rotation, tiles
from folkmoot_core.ledger.checkpoint import Checkpoint
from folkmoot_core.ledger.findings import Check, Report
from folkmoot_core.ledger.note import ED25519, VerifierKey
from folkmoot_core.ledger.policy import Policy
from folkmoot_core.ledger.scan import Entry, text

Read = Callable[[str], bytes | None]
"""A file of the log by its path, or None."""

MAX_SHOWN_TIME = 253402300799  # 9999-12-31T23:59:59Z


@dataclass
class Keys:
    """The keys of a log's own signatures."""

    known: list[VerifierKey]
    """Ed25519 keys that may have signed: the given one first, then the one beside the log, if it has the same name."""
    given: bool
    mldsa: VerifierKey | None
    signer: VerifierKey | None = None
    """The Ed25519 key that signed the checkpoint."""
    signed_by: tuple[VerifierKey, ...] = ()
    line: list[list[VerifierKey]] = field(default_factory=list)
    """What entry 0 and each rotation named, in order."""
    last: int = 0
    """Position of the last of these."""
    opening: Check | None = None

    def open(self, report: Report, read: Read, origin: str | None, given: Policy | None) -> Checkpoint | None:
        """Obligations 1 and 9 of `audit`: the checkpoint, or None where it is not this log's."""
        signed = read(tiles.CHECKPOINT)
        if signed is None:
            raise Missing("no checkpoint: expected a log as a static directory (checkpoint, tile/…), as `evidence` exports it")
        report.signed = signed
        check = report.check("checkpoint", "size and root are signed by the log's key")
        rules = given
        own = None
        if given is None and (own := read(tiles.POLICY)) is not None:
            rules = _own_policy(check, own)
        witnesses = rules.witnesses if rules is not None else ()
        own_keys = [*self.known, *([self.mldsa] if self.mldsa is not None else [])]
        try:
            opened = note.open_note(signed, [*own_keys, *(each.key for each in witnesses)])
            self.signed_by = opened.signers
            self.signer = next((key for key in self.known if key in opened.signers), None)
            if self.signer is None:
                raise Invalid(f"it is not signed by {self.known[0].name} with key id {self.known[0].id.hex()}")
            found = checkpoint.parse(opened.text)
            if found.origin != (origin or self.signer.name):
                raise Invalid(f"checkpoint is of log {found.origin[:80]!r}; expected {origin or self.signer.name!r}")
        except Invalid as error:
            check.find(error.message)
            return None
        if self.mldsa is not None and self.mldsa not in opened.signers:
            check.find(f"it lacks the signature of the log's ML-DSA-44 key {self.mldsa.id.hex()}")
        report.signers = _names(signed, opened.signers)
        if rules is not None and (given is not None or rules.witnesses):
            _check_policy(report, rules, signed, own is None)
        return found

    def turn(self, report: Report, position: int, entry: Entry) -> None:
        """An entry that names keys, 5."""
        check = self._opening(report)
        try:
            if entry.kind == "log.opened":
                if position == 0:
                    self.line.append(_named(entry))
                return
            if not self.line:  # entry 0 is pruned: the line begins with the key that the oldest rotation left
                self.line.append([note.parse_vkey(text(entry.facts.get("previous")))])
            old = next(key for key in self.line[-1] if key.algorithm == ED25519)
            statement = entry.facts.get("statement")
            self.line.append(list(rotation.verify(statement.encode() if isinstance(statement, str) else b"", old, _named(entry))))
            self.last = position
        except FolkmootError as error:
            check.find(f"entry {position}: its keys are not the log's: {error.message}")

    def end(self, report: Report) -> None:
        """All entries are followed: the line must lead from the key that is trusted to the one that signed."""
        check = self._opening(report)
        if not self.line:
            if not report.pruned:
                return  # there is no opening, which is found already
            report.notes.append("entry 0, which names the log's first key, is pruned: trust rests on the key that was given")
            if self.signer != self.known[0]:
                check.find(
                    "the given key did not sign the checkpoint, and the entries that hand over to the one that did are gone"
                )
            return
        if self.signer not in self.line[-1]:
            named = f"entry {self.last}" + (" introduced" if self.last else " names")
            check.find(f"{named} another key than the one that signed the checkpoint")
        for key in self.line[-1]:
            if key.algorithm != ED25519 and not _signed(report.signed, key):
                check.find(f"the log's ML-DSA-44 key {key.id.hex()}, which entry {self.last} names, did not sign the checkpoint")
        if self.given and self.known[0] not in [key for keys in self.line for key in keys]:
            check.find("the given key is none that the log ever had, by its entry 0 and its rotations")
        if len(self.line) > 1:
            report.notes.append(
                f"the log's keys were changed {len(self.line) - 1} times, last in entry {self.last}, each time signed by those before"
            )

    def _opening(self, report: Report) -> Check:
        if self.opening is None:
            self.opening = next(check for check in report.checks if check.name == "opening")
        return self.opening


def gather(read: Read, vkey: str | None, given: Policy | None) -> Keys:
    """The keys to go by. Raises `Missing` when there is none, `Invalid` for one that is none."""
    published = read(tiles.VKEY)
    beside = [_vkey(published, tiles.VKEY)] if published is not None else []
    trusted = [note.parse_vkey(vkey)] if vkey is not None else []
    if given is not None and not trusted:
        trusted = [log.key for log in given.logs if log.key.algorithm == ED25519]
    if not trusted and not beside:
        raise Missing(f"no key: the log has no {tiles.VKEY}, and none was given")
    names = {key.name for key in trusted}
    known = [*trusted, *(key for key in beside if key not in trusted and (not names or key.name in names))]
    if any(key.algorithm != ED25519 for key in known):
        raise Invalid("the log's key is an Ed25519 key (type 01); give its ML-DSA-44 key in a policy file")
    second = read(tiles.MLDSA_VKEY)
    return Keys(known, bool(trusted), _vkey(second, tiles.MLDSA_VKEY) if second is not None else None)


def _named(entry: Entry) -> list[VerifierKey]:
    """The keys that an opening or a rotation names, Ed25519 first; raises `Invalid`."""
    named = [text(entry.facts.get(name)) for name in ("vkey", "mldsa")]
    return list(rotation.check_keys(entry.origin, [vkey for vkey in named if vkey]))


def _vkey(data: bytes, name: str) -> VerifierKey:
    try:
        return note.parse_vkey(data.decode(errors="replace"))
    except Invalid as error:
        raise Invalid(f"{name}: {error.message}") from error


def _own_policy(check: Check, data: bytes) -> Policy | None:
    try:
        return policy.parse(data.decode(errors="replace"))
    except Invalid as error:
        check.find(f"the log's own policy file cannot be read: {error.message}")
        return None


def _check_policy(report: Report, rules: Policy, signed: bytes, given: bool) -> None:
    whose = "the given policy" if given else "the log's own policy"
    check = report.check("witnesses", f"the quorum of {whose} is met ({rules.quorum})")
    try:
        rules.check(signed)
    except Invalid as error:
        check.find(error.message)
    if not given:
        report.notes.append("The witnesses are those that the log itself names: compare their keys, or give --policy.")


def _signed(signed: bytes, key: VerifierKey) -> bool:
    try:
        note.open_note(signed, [key])
    except Invalid:
        return False
    return True


def _names(signed: bytes, signers: Sequence[VerifierKey]) -> list[str]:
    """In words, with the time that a cosigner states."""
    known = {(key.name, key.id): key for key in signers}
    said = []
    for line in note.split(signed)[1]:
        key = known.get((line.name, line.key_id))
        if key is None:
            continue
        kind = {note.ED25519: "Ed25519", note.COSIGNATURE: "Ed25519 cosignature", note.MLDSA44: "ML-DSA-44"}[key.algorithm]
        time = "" if key.algorithm == ED25519 else f" at {rfc3339(min(cosignature.timestamp(line.payload), MAX_SHOWN_TIME))}"
        said.append(f"{key.name} {kind} {key.id.hex()}{time}")
    return said
