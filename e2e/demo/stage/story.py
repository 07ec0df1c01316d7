"""The demo's story on a cluster, and the screen at its end. Every line of that screen is something that was seen."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from folkmoot_cli.events import Story
from folkmoot_cli.following import cost_table
from folkmoot_cli.output import rich_table

from . import evidence, install, network, tenants
from .cluster import Cluster, Manifest
from .evidence import Evidence
from .shell import ROOT, STARTED, Failed, attempt, say, show, step, title
from .tenants import DEMO, PLURALS, name

FOLKMOOT = Path(sys.executable).with_name("folkmoot")
OUT = ROOT / ".demo"
ACME, GLOBEX = "folkmoot-acme", "folkmoot-globex"


@dataclass
class Seen:
    """What the screen needs."""

    session: str = ""
    story: Story = field(default_factory=Story)
    events: list[dict[str, object]] = field(default_factory=list)
    reached: network.Reached | None = None
    evidence: Evidence | None = None
    verified: str = ""
    checked: str = ""


def play() -> int:
    """Bring everything up, play, show. Raises `NotHere` where no cluster can be, `Failed` where something is not as it must be."""
    cluster = Cluster()
    title("A cluster")
    with step("cluster up"):
        cluster.up()
    say(f"           driver: {cluster.status().get('driver')}, kubeconfig: {cluster.kubeconfig}")
    prepare(cluster)
    title("Two tenants")
    tenants.apply(cluster, tenants.everything())
    seen = Seen()
    title("A council of four vendors' agents decides about a patch")
    seen.session = _session(cluster, seen)
    title("The other tenant")
    _greeting(cluster)
    with step("globex reaches for acme's bus"):
        seen.reached = network.reach(cluster)
    title("Evidence")
    _evidence(cluster, seen)
    screen(cluster, seen)
    (OUT / "demo.seconds").write_text(f"{time.monotonic() - STARTED:.0f}\n")
    return 0


def prepare(cluster: Cluster) -> None:
    """Images, simulator, charts."""
    title("Images, Folkmoot, the model simulator")
    install.kinds(cluster)
    install.images(cluster)
    with step("model simulator (stands for four vendors; only the models' words come from it)"):
        install.simulator(cluster, (DEMO / "scenario.yaml").read_text())
    install.operator(cluster)


def _sessions() -> dict[str, Manifest]:
    return {m["metadata"]["namespace"]: m for m in install.manifests(DEMO / "sessions.yaml")}


def _session(cluster: Cluster, seen: Seen) -> str:
    cluster.apply(tenants.program_config_map(ACME))
    session = tenants.fresh(cluster, _sessions()[ACME])
    cluster.apply(session)
    where = ["-n", ACME]
    with step(f"session {name(session)}"):
        code = show(
            [FOLKMOOT, "session", "watch", name(session), *where, "--timeout", "900"], environment=cluster.client_environment
        )
    if code != 0:
        raise Failed(f"session {name(session)} did not succeed; see: kubectl describe session {name(session)} -n {ACME}")
    done = attempt([FOLKMOOT, "session", "watch", name(session), *where, "-o", "json"], environment=cluster.client_environment)
    seen.events = [json.loads(line) for line in done.stdout.splitlines()]
    for event in seen.events:
        seen.story.add(event)
    expect(seen.story)
    cluster.wait("Succeeded", PLURALS["Session"], name(session), ACME, seconds=60)
    return name(session)


def expect(story: Story) -> None:
    """The story of the issue, or `Failed` naming what was otherwise."""
    verdicts = [v.verdict for v in story.verdicts]
    if verdicts != ["Revise", "Approved"]:
        raise Failed(f"the gate said {verdicts}; expected Revise, then Approved")
    first = story.verdicts[0]
    if "test-deleted" not in first.shapes or not any(
        "tests/test_discount.py:" in f and "test-deleted" in f for f in first.findings
    ):
        raise Failed(f"the first verdict cites {first.shapes} in {first.findings}; expected test-deleted with file and line")
    dissent = story.decisions[-1].get("dissent") if story.decisions else None
    if dissent != ["sable"]:
        raise Failed(f"dissent on record: {dissent}; expected sable's")
    if sorted(story.shares) != ["athena", "builder", "loom", "sable"] or any(s.cost is None for s in story.shares.values()):
        raise Failed(f"costs of {sorted(story.shares)}; expected one for each of the four agents")
    if len({s.family for s in story.shares.values()}) != 4:
        raise Failed(f"model families {sorted({s.family for s in story.shares.values()})}; expected four")


def _greeting(cluster: Cluster) -> None:
    session = tenants.fresh(cluster, _sessions()[GLOBEX])
    cluster.apply(session)
    with step(f"session {name(session)} of globex"):
        cluster.wait("Succeeded", PLURALS["Session"], name(session), GLOBEX)


def _evidence(cluster: Cluster, seen: Seen) -> None:
    with step("acme's log exported through the conductor's door"):
        seen.evidence = evidence.fetch(cluster, FOLKMOOT, "acme", OUT)
    with step("folkmoot verify, offline"):
        tenant = cluster.get(PLURALS["Tenant"], "acme") or {}
        seen.verified = evidence.verify(FOLKMOOT, seen.evidence, tenant["status"]["audit"]["vkey"])
    with step("Tessera's fsck on the same log"):
        seen.checked = evidence.fsck(cluster, seen.evidence)


def screen(cluster: Cluster, seen: Seen) -> None:
    """The last screen."""
    story = seen.story
    out = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 140)
    title("What happened")
    for namespace in (ACME, GLOBEX):
        out.print(rich_table(f"Pods of {namespace}", ("POD", "CONTAINERS", "PHASE", "RESTARTS"), _pods(cluster, namespace)))
        say()
    for decision in story.decisions:
        number = decision.get("submission")
        rows = [[agent, vote, reason] for n, agent, vote, reason in story.votes if n == number]
        head = f"Votes on submission {number}: {decision.get('decision')}, {decision.get('for')} for, {decision.get('against')} against"
        out.print(
            rich_table(
                f"{head}; dissent on record: {', '.join(decision.get('dissent') or ['none'])}", ("MEMBER", "VOTE", "REASON"), rows
            )
        )
        say()
    for verdict in story.verdicts:
        say(
            f"Gate on submission {verdict.submission}: {verdict.verdict}{': ' if verdict.shapes else ''}{', '.join(verdict.shapes)}"
        )
        for finding in verdict.findings:
            say(f"  {finding}")
    say()
    out.print(cost_table(story))
    assert seen.reached is not None
    assert seen.evidence is not None
    say("\nNetwork")
    for line in seen.reached.lines():
        say(f"  {line}")
    say(f"\nEvidence ({seen.evidence.tar.relative_to(ROOT)})")
    for line in seen.verified.split("\n\n")[:2]:  # what it is, and each check; the counts by type are for a person who asks
        say("  folkmoot verify: " + line.replace("\n", "\n                   "))
    say(f"  tessera fsck:    {seen.checked[seen.checked.find('] ') + 2 :]}")
    title("The cluster stays up. To look around")
    say(f"  export KUBECONFIG={cluster.kubeconfig} PATH={Path(cluster.kubectl_program).parent}:{FOLKMOOT.parent}:$PATH")
    say("  kubectl get folkmoot -A")
    say(f"  kubectl folkmoot session watch {seen.session} -n {ACME}")
    say("  kubectl describe tenants.folkmoot.dev acme        (make down removes the cluster)")


def _pods(cluster: Cluster, namespace: str) -> list[list[str]]:
    rows = []
    for pod in sorted(cluster.items("pods", namespace), key=name):
        states = pod["status"].get("containerStatuses") or []
        containers = ", ".join(c["name"] for c in pod["spec"]["containers"])
        rows.append([name(pod), containers, pod["status"]["phase"], str(sum(s["restartCount"] for s in states))])
    return rows
