"""`Tenant.spec.audit`: how long the tenant's log can be read, who cosigns it, who timestamps it.

Whoever may write Tenants decides it, and nobody in the tenant's namespace: certificates and keys stand here in full, because a
ConfigMap there could be exchanged by those whose record the log is.
"""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import Field, StringConstraints

from folkmoot_core.resources.common import NAMED_LIST, Duration, Name, Spec, seconds
from folkmoot_core.resources.rules import Rule, unique

CLUSTER: Final = "cluster"  # the installation's own witness, which no manifest names
FLOOR: Final = "4416h"  # 184 days: six months, whichever they are (AI Act, Articles 19 and 26)
CEILING: Final = "876000h"  # a hundred years; CEL's durations end at 292
MAX_WITNESSES: Final = 8  # a client of the format may give up at 100 lines, a witness at 16 KiB
MAX_AUTHORITIES: Final = 4
_PORT: Final = r"([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
HttpsUrl = Annotated[
    str, StringConstraints(pattern=rf"^https://[A-Za-z0-9._-]+(:{_PORT})?(/[A-Za-z0-9._~/-]*)?$", max_length=512)
]
Vkey = Annotated[str, StringConstraints(pattern=r"^[^\s+]{1,255}\+[0-9a-f]{8}\+[A-Za-z0-9+/=]+$", max_length=2048)]
# Without counts: the API server's regular expressions end where counts within counts multiply to more than a thousand.
Oid = Annotated[str, StringConstraints(pattern=r"^[0-2](\.(0|[1-9][0-9]*))+$", max_length=400)]
Pem = Annotated[str, StringConstraints(min_length=1, max_length=65536)]


class WitnessSpec(Spec):
    """A witness outside this installation (C2SP tlog-witness) that cosigns the log's checkpoints."""

    name: Name = Field(description="Name of this witness in the log's policy and in status.")
    key: Vkey = Field(description="Its vkey, type 0x04 (Ed25519 cosignatures) or 0x06 (ML-DSA-44), as its operator publishes it.")
    url: HttpsUrl = Field(description="Submission prefix; /add-checkpoint is appended. Reached through the tenant's broker.")

    rules = (
        Rule(
            f"self.name != '{CLUSTER}'",
            f"the name {CLUSTER} is the installation's own witness, which cosigns every log without being listed; choose another",
            lambda w: w.name != CLUSTER,
            ".name",
        ),
    )


class TimestampAuthoritySpec(Spec):
    """An RFC 3161 authority, with the certificates that its tokens are checked against."""

    name: Name = Field(description="Name of this authority; its tokens are files of this name beside the log.")
    url: HttpsUrl = Field(description="Where queries are POSTed. Reached through the tenant's broker.")
    certificates: Pem = Field(
        description="PEM: the authority's own certificate first, intermediates, the root last. What a token brings along is "
        "not believed."
    )
    policy: Oid | None = Field(
        default=None,
        description="Object identifier of the policy that tokens are asked for and must be made under, such as 1.2.3. Default: whichever the "
        "authority has.",
    )


class Timestamps(Spec):
    authorities: tuple[TimestampAuthoritySpec, ...] = Field(
        default=(),
        max_length=MAX_AUTHORITIES,
        description="Each of them is asked. Empty: nobody outside says when the log was written.",
        json_schema_extra=NAMED_LIST,
    )
    every_entries: int = Field(default=256, ge=1, le=1_000_000, description="A timestamp at the latest after so many entries.")
    every_seconds: int = Field(
        default=60, ge=1, le=86400, description="A timestamp at the latest after so many seconds in which the log grew."
    )

    rules = (unique("authorities", lambda a: a.name, "authorities has the same name twice; name each authority once"),)


class Audit(Spec):
    retention: Duration = Field(
        default="8784h",
        description="How long entries can be read, 184 days (4416h) at least; after that they are pruned, on record, and every "
        "proof still checks. Default: 366 days.",
    )
    witnesses: tuple[WitnessSpec, ...] = Field(
        default=(),
        max_length=MAX_WITNESSES,
        description="Witnesses beside the installation's own, which cosigns every log.",
        json_schema_extra=NAMED_LIST,
    )
    witness_quorum: int | None = Field(
        default=None,
        ge=0,
        le=MAX_WITNESSES,
        description="How many of spec.audit.witnesses must have cosigned a checkpoint before anybody sees it; 0 waits for none. "
        "Default: all of them.",
    )
    timestamps: Timestamps = Field(default=Timestamps(), description="Who says when the log was written (RFC 3161).")

    rules = (
        Rule(
            f"duration(self.retention) >= duration('{FLOOR}') && duration(self.retention) <= duration('{CEILING}')",
            f"retention is from {FLOOR} (184 days) to {CEILING} (100 years): logs are kept for six months at least, whoever asks",
            lambda a: seconds(FLOOR) <= seconds(a.retention) <= seconds(CEILING),
            ".retention",
        ),
        unique("witnesses", lambda w: w.name, "witnesses has the same name twice; name each witness once"),
        Rule(
            "!has(self.witnessQuorum) || self.witnessQuorum <= (has(self.witnesses) ? size(self.witnesses) : 0)",
            "witnessQuorum is larger than the number of witnesses: no checkpoint would ever be shown",
            lambda a: a.witness_quorum is None or a.witness_quorum <= len(a.witnesses),
            ".witnessQuorum",
        ),
    )
