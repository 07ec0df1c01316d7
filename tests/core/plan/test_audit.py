"""`spec.audit` and the installation's witness as the audit part of the document; what is wrong with keys and certificates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from timestamps import forger, pem

from folkmoot_core.document import AuditEntry
from folkmoot_core.ledger.cosignature import Ed25519Cosigner, MlDsaSigner
from folkmoot_core.ledger.note import Ed25519Signer
from folkmoot_core.ledger.terms import policy_of
from folkmoot_core.plan import audit, network, views
from folkmoot_core.plan.document import document
from folkmoot_core.plan.types import Installation, Problems
from folkmoot_core.plan.views import TenantView
from folkmoot_core.resources.audit import Audit

PARTNERS = [Ed25519Cosigner.from_seed(f"w{i}.example", bytes([i]) * 32).verifier().vkey() for i in (1, 2, 3)]
PARTNER_PQ = MlDsaSigner.from_seed("w4.example", b"4" * 32).verifier().vkey()
LOG = Ed25519Signer.from_seed("folkmoot/x", b"l" * 32).verifier().vkey()
OWN = Ed25519Cosigner.from_seed("folkmoot-witness/x", b"c" * 32).verifier().vkey()
WITNESS_URL = "https://folkmoot-witness.folkmoot-system.svc:8447"


def witness(number: int, **other: Any) -> dict[str, Any]:
    return {"name": f"w{number}", "key": PARTNERS[number], "url": f"https://w{number}.example", **other}


def authority(**other: Any) -> dict[str, Any]:
    return {"name": "tsa", "url": "https://tsa.example/tsr", "certificates": pem(forger().chain), **other}


def problems(**spec: Any) -> list[str]:
    found = views.parse_tenant({"metadata": {"name": "acme"}, "spec": {"cause": "I keep.", "audit": spec}})
    return [str(item) for item in found.items] if isinstance(found, Problems) else []


def test_nothing_said_is_the_default(installation: Callable[..., Installation]) -> None:
    assert audit.entry(Audit(), installation()) == AuditEntry()


def test_the_installations_witness_comes_first_once_its_key_is_known(installation: Callable[..., Installation]) -> None:
    spec = Audit.model_validate({"witnesses": [witness(1), witness(0)], "witnessQuorum": 1})
    waiting = audit.entry(spec, installation(witness_url=WITNESS_URL))
    assert [w.name for w in waiting.witnesses] == ["w0", "w1"]
    known = audit.entry(spec, installation(witness_url=WITNESS_URL, witness_key=OWN))
    assert next((w.name, w.url) for w in known.witnesses) == ("cluster", WITNESS_URL)
    rules = policy_of((LOG,), known)
    assert rules.met(frozenset({"cluster", "w1"}))
    assert not rules.met(frozenset({"w0", "w1"}))
    assert not rules.met(frozenset({"cluster"}))


def test_all_named_witnesses_are_needed_unless_a_quorum_says_less(installation: Callable[..., Installation]) -> None:
    spec = Audit.model_validate({"witnesses": [witness(0), witness(1)]})
    assert not policy_of((LOG,), audit.entry(spec, installation())).met(frozenset({"w0"}))
    none = Audit.model_validate({"witnesses": [witness(0)], "witnessQuorum": 0})
    assert policy_of((LOG,), audit.entry(none, installation())).met(frozenset())


@given(st.integers(184 * 24, 876_000), st.integers(0, 59), st.integers(0, 59))
def test_days_of_retention_are_never_fewer_than_asked_for(hours: int, minutes: int, seconds: int) -> None:
    text = f"{hours}h" + (f"{minutes}m" if minutes else "") + (f"{seconds}s" if seconds else "")
    spec = Audit(retention=text)
    inst = Installation("s", "f", "u", "o", "r", "i", "j", "c", "v")
    asked = hours * 3600 + minutes * 60 + seconds
    assert 0 <= audit.entry(spec, inst).retention_days * 86400 - asked < 86400


def test_authorities_and_cadence_go_into_the_document(
    tenant: Callable[..., TenantView], installation: Callable[..., Installation]
) -> None:
    view = tenant(audit={"timestamps": {"authorities": [authority()], "everyEntries": 10, "everySeconds": 30}})
    made = document(view, [], [], [], {}, installation()).audit
    assert (made.anchor_entries, made.anchor_seconds) == (10, 30)
    assert [(a.name, a.url, a.policy) for a in made.authorities] == [("tsa", "https://tsa.example/tsr", "")]
    pinned = Audit.model_validate({"timestamps": {"authorities": [authority(policy="1.2.3")]}})
    assert audit.entry(pinned, installation()).authorities[0].policy == "1.2.3"


def test_the_broker_may_go_where_witnesses_and_authorities_are(
    tenant: Callable[..., TenantView], installation: Callable[..., Installation]
) -> None:
    view = tenant(
        providers=[],
        audit={
            "witnesses": [witness(0, url="https://w.partner.svc:8447"), witness(1, url="https://203.0.113.7:9443/log")],
            "timestamps": {"authorities": [authority()]},
        },
    )
    assert network._outside(view, installation()) == [
        network.rule("to", [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "partner"}}}], (8447,)),
        network.rule("to", [{"ipBlock": {"cidr": "203.0.113.7/32"}}], (9443,)),
        network.rule("to", [{"ipBlock": {"cidr": "0.0.0.0/0", "except": sorted(network.NOT_OUTSIDE)}}], (443,)),
    ]


@pytest.mark.parametrize(
    ("spec", "field", "says"),
    [
        ({"witnesses": [witness(0, key="w+00000000+BHm1")]}, "witnesses[0].key", "vkey"),
        ({"witnesses": [witness(0, key=LOG)]}, "witnesses[0].key", "found type 01"),
        ({"witnesses": [witness(0), witness(1, key=PARTNERS[0])]}, "witnesses[1].key", "witness w0 too"),
        ({"timestamps": {"authorities": [authority(certificates="PEM")]}}, "timestamps.authorities[0].certificates", "PEM"),
        ({"timestamps": {"authorities": [authority(policy="any")]}}, "timestamps.authorities[0].policy", ""),
        ({"timestamps": {"authorities": [authority(policy="1.99")]}}, "timestamps.authorities[0].policy", "not an object"),
        (
            {"timestamps": {"authorities": [authority(certificates=pem(forger().chain[:1]))]}},
            "timestamps.authorities[0].certificates", "root last",
        ),
        (
            {"timestamps": {"authorities": [authority(certificates=pem(forger().chain[::-1]))]}},
            "timestamps.authorities[0].certificates", "",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_used_names_its_field(spec: dict[str, Any], field: str, says: str) -> None:
    found = problems(**spec)
    assert [text for text in found if text.startswith(f"spec.audit.{field}: ") and says in text], found


def test_cosigners_of_both_kinds_can_be_used() -> None:
    assert problems(witnesses=[witness(0), witness(1, key=PARTNER_PQ)], timestamps={"authorities": [authority()]}) == []
