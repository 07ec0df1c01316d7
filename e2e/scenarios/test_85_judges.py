"""Programs that are not ours on the log of a running tenant that the installation's authority timestamps: what its export tells to type,
Go's and transparency-dev's readers, and all of it again after the log's keys were exchanged, and once more after its end.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from stage import evidence, lone, network
from stage.cluster import Cluster
from stage.install import SYSTEM
from stage.sessions import FOLKMOOT
from stage.shell import Failed, attempt, run
from stage.tenants import PLURALS

from folkmoot_core import names
from folkmoot_core.document import AuditEntry, WitnessEntry
from folkmoot_core.ledger import proof
from folkmoot_core.ledger.terms import CLUSTER, policy_of
from folkmoot_core.plan.audit_conditions import moment

TENANT, JUDGED = "judged", "folkmoot-judged"
FSCK = re.compile(r"go run github\.com/transparency-dev/tessera/cmd/fsck@v1\.\d+\.\d+ ")
Report = dict[str, Any]


@dataclass(frozen=True)
class Judges:
    """Paths of the programs."""

    fsck: str
    judges: str
    openssl: str

    def typed(self, command: str, directory: Path) -> tuple[int, str]:
        """A command of an export's page, as a person types it there, with what is built already in the place of `go run`."""
        line = FSCK.sub(f"{self.fsck} ", command).replace("openssl ", f"{self.openssl} ", 1)
        done = subprocess.run(["/bin/bash", "-c", line], cwd=directory, capture_output=True, text=True, timeout=120, check=False)
        return done.returncode, done.stdout + done.stderr

    def page(self, directory: Path) -> int:
        """Type all of the page but our own; how many timestamps it names."""
        commands = [line.strip() for line in (directory / "README.txt").read_text().splitlines() if line.startswith("  ")]
        fsck, sums = (next(one for one in commands if one.startswith(word)) for word in ("go run ", "sha256sum "))
        stamps = [one for one in commands if one.startswith("openssl ts -verify ")]
        assert FSCK.match(fsck)
        for command in (fsck, *([sums] if (directory / "SHA256SUMS").exists() else []), *stamps):
            code, said = self.typed(command, directory)
            assert code == 0, f"{command}\n{said}"
            assert not command.startswith("openssl") or "Verification: OK" in said, said
        return len(stamps)

    def asked(self, *words: str | Path) -> str:
        """What e2e/judges says: "ok", or its complaint."""
        done = attempt([self.judges, *words], timeout=120)
        return (done.stdout + done.stderr).strip()


@pytest.fixture(scope="module")
def judges(cluster: Cluster) -> Judges:
    """Built or installed once."""
    try:
        return Judges(*(cluster.tool(name) for name in ("fsck", "judges", "openssl")))
    except Failed as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"the foreign judges need Go and OpenSSL, and cannot be had here: {error}")


@pytest.fixture(scope="module")
def chain(installed: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The authority's certificates, fetched as the chart's notes tell a person to."""
    words = ("-n", SYSTEM, "exec", f"{names.SA_TIMESTAMPS}-0", "--", "cat", "/data/timestamps/chain.pem")
    target = tmp_path_factory.mktemp("authority") / "chain.pem"
    target.write_text(installed.kubectl(*words))
    return target


@pytest.fixture(scope="module")
def judged(moot: Cluster, chain: Path) -> Iterator[Cluster]:
    """A tenant that names the authority, with a session behind it."""
    url = f"https://{names.SA_TIMESTAMPS}.{SYSTEM}.svc:{names.PORT_TIMESTAMPS}/"
    authority = {"name": CLUSTER, "url": url, "certificates": chain.read_text()}
    lone.live(moot, lone.manifest(TENANT, "I am judged.", audit={"timestamps": {"authorities": [authority]}}))
    lone.speak(moot, TENANT)
    moot.wait("AuditAnchored", PLURALS["Tenant"], TENANT, seconds=300)
    yield moot
    moot.kubectl("delete", PLURALS["Tenant"], TENANT, "--timeout=300s", "--ignore-not-found")


@pytest.fixture(scope="module")
def export(judged: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The log as it was before its keys were exchanged."""
    return exported(judged, tmp_path_factory.mktemp("before"))


def exported(cluster: Cluster, folder: Path) -> Path:
    """`folkmoot ledger export` once the log's newest timestamp is in what it exports."""
    target = folder / "evidence"
    control(cluster, "anchor")
    run([FOLKMOOT, "ledger", "export", target, "--tenant", TENANT], environment=cluster.client_environment)
    return target


def control(cluster: Cluster, act: str) -> Report:
    """What `folkmoot ledger status|rotate|anchor` answers."""
    words = [FOLKMOOT, "ledger", act, "--tenant", TENANT, "-o", "json"]
    found: Report = json.loads(run(words, environment=cluster.client_environment))
    return found


def vkeys(cluster: Cluster) -> tuple[str, ...]:
    """The log's keys, by the Tenant's status."""
    return tuple(_audit(cluster)["vkeys"])


def verified(source: Path, *words: str | Path) -> Report:
    """What `folkmoot verify` says of a source that it accepts."""
    done = attempt([FOLKMOOT, "verify", source, *words, "-o", "json"])
    assert done.returncode == 0, done.stdout + done.stderr
    found: Report = json.loads(done.stdout)
    return found


def origin(directory: Path) -> str:
    return (directory / "checkpoint").read_text().splitlines()[0]


# -- as it runs -----------------------------------------------------------------------------------------------------------


def test_what_the_page_of_an_export_tells_to_type_says_ok(judges: Judges, export: Path) -> None:
    assert judges.page(export) >= 1


def test_gos_own_code_reads_the_log_and_formats_every_signature(judges: Judges, judged: Cluster, export: Path) -> None:
    keys = vkeys(judged)
    assert (export / "log.vkey").read_text().strip() == keys[0]
    assert judges.asked("log", export, keys[0]) == "ok"
    everybody = (*keys, evidence.witness_key(judged))
    assert judges.asked("cosigned", export / "checkpoint", origin(export), *everybody) == "ok"


def test_a_sessions_receipt_is_proved_by_other_peoples_code(
    judges: Judges, judged: Cluster, export: Path, tmp_path: Path
) -> None:
    receipt, entry = tmp_path / "end.tlog-proof", tmp_path / "entry"
    run([FOLKMOOT, "ledger", "proof", "--session", "speak", "--source", export, "--write", receipt])
    entry.write_bytes(proof.parse(receipt.read_bytes()).extra)
    everybody = (*vkeys(judged), evidence.witness_key(judged))
    assert judges.asked("proof", receipt, entry, origin(export), *everybody) == "ok"
    entry.write_bytes(entry.read_bytes() + b" ")
    assert judges.asked("proof", receipt, entry, origin(export), *everybody) != "ok"


def test_ours_agrees_and_knows_whose_time_it_is(judged: Cluster, export: Path, chain: Path) -> None:
    found = verified(export, "--key", vkeys(judged)[0], "--tsa-ca", f"{CLUSTER}={chain}")
    assert found["anchors"]
    assert all(one["pinned"] for one in found["anchors"])


# -- keys are exchanged ---------------------------------------------------------------------------------------------------


def test_keys_are_exchanged_while_it_runs(judges: Judges, judged: Cluster, export: Path, chain: Path, tmp_path: Path) -> None:
    old, kept = vkeys(judged), tmp_path / "kept.state"
    verified(export, "--key", old[0], "--state", kept)
    new = tuple(control(judged, "rotate")["vkeys"])
    assert not {*old} & {*new}
    judged.until("the new keys in the Tenant's status", lambda: vkeys(judged) == new, seconds=60)
    everybody, place = (*new, evidence.witness_key(judged)), tmp_path / "checkpoint"
    judged.until("a checkpoint by the new keys and the witness", lambda: _signed(judges, judged, place, everybody), seconds=120)
    judged.wait("AuditReady", PLURALS["Tenant"], TENANT, seconds=120)
    before = control(judged, "status")["size"]
    lone.speak(judged, TENANT)
    judged.until("the log to be shown as it grows", lambda: control(judged, "status")["size"] > before, seconds=60)

    after = exported(judged, tmp_path)
    assert judges.page(after) > 1  # tokens from before and from after
    assert judges.asked("log", after, new[0]) == "ok"
    assert judges.asked("log", after, old[0]) != "ok"
    assert judges.asked("cosigned", after / "checkpoint", origin(after), *everybody) == "ok"
    believed = ("--tsa-ca", f"{CLUSTER}={chain}")
    found = verified(after, "--key", old[0], "--state", kept, *believed)  # who kept the old key, and what it said
    assert found["types"]["log.key.rotated"] == 1
    rules = tmp_path / "policy"
    terms = AuditEntry(witnesses=(WitnessEntry(name=CLUSTER, key=everybody[-1], url="https://witness"),))
    rules.write_text(policy_of(new, terms).text())
    assert all(check["ok"] for check in verified(after, "--policy", rules, *believed)["checks"])


def test_a_timestamp_on_demand_is_newer_and_its_files_are_exported(judges: Judges, judged: Cluster, tmp_path: Path) -> None:
    before = control(judged, "status")
    found = control(judged, "anchor")
    assert found["anchored_size"] > before["anchored_size"]
    assert (moment(found["anchored"]) or 0) > (moment(before["anchored"]) or 0)
    assert found["unanchored"] == ""
    after = exported(judged, tmp_path)
    name = f"anchors/{found['anchored_size']}.{CLUSTER}.tsr"
    (command,) = (line.strip() for line in (after / "README.txt").read_text().splitlines() if f" {name} " in line)
    code, said = judges.typed(command, after)
    assert (code, "Verification: OK" in said) == (0, True), said


# -- the authority --------------------------------------------------------------------------------------------------------


def test_brokers_of_tenants_that_name_it_reach_the_authority_and_nobody_else(judged: Cluster) -> None:
    there = f"{names.SA_TIMESTAMPS}.{SYSTEM}.svc.cluster.local:{names.PORT_TIMESTAMPS}"
    assert network.connect(judged, JUDGED, "broker-0", there) == {there: "connected"}
    others = (
        (JUDGED, "core-0"),
        (JUDGED, f"deploy/agent-{lone.AGENT}"),
        ("folkmoot-acme", "broker-0"),
        (SYSTEM, "deploy/folkmoot-operator"),
    )
    for namespace, workload in others:
        assert network.connect(judged, namespace, workload, there) == {there: "timed out"}, workload
    endpoint = f"folkmoot-operator.{SYSTEM}.svc.cluster.local:{names.PORT_OPERATOR}"
    ways = (f"broker.{JUDGED}.svc.cluster.local:{names.PORT_BROKER}", "kubernetes.default.svc.cluster.local:443", "192.0.2.1:443")
    found = network.connect(judged, SYSTEM, f"{names.SA_TIMESTAMPS}-0", endpoint, *ways)
    assert found == {endpoint: "connected", **dict.fromkeys(ways, "timed out")}


def test_while_the_authority_is_away_the_log_is_shown_and_one_token_catches_up(
    judged: Cluster, chain: Path, tmp_path: Path
) -> None:
    before, workload = control(judged, "anchor"), f"statefulset/{names.SA_TIMESTAMPS}"
    judged.kubectl("scale", workload, "--replicas=0", "-n", SYSTEM)
    component = "app.kubernetes.io/component=timestamps"
    judged.until("the authority to be gone", lambda: not judged.items("pods", SYSTEM, component), seconds=120)
    try:
        lone.speak(judged, TENANT)
        away = control(judged, "anchor")
        assert away["unanchored"].startswith(f"{CLUSTER}: ")
        assert (away["anchored_size"], away["reason"]) == (before["anchored_size"], "")
        assert away["size"] > before["size"]
        judged.until("the Tenant to say so", lambda: _audit(judged).get("unanchored"), seconds=60)
        judged.wait("AuditReady", PLURALS["Tenant"], TENANT, seconds=10)
    finally:
        judged.kubectl("scale", workload, "--replicas=1", "-n", SYSTEM)
    judged.kubectl("rollout", "status", workload, "-n", SYSTEM, "--timeout=240s")
    judged.until("a token that catches up", lambda: control(judged, "anchor")["unanchored"] == "", seconds=120)
    assert control(judged, "status")["anchored_size"] > away["size"]
    judged.until("the Tenant to have it", lambda: not _audit(judged).get("unanchored"), seconds=60)
    verified(exported(judged, tmp_path), "--tsa-ca", f"{CLUSTER}={chain}")  # its chain is the same


# -- its end --------------------------------------------------------------------------------------------------------------


def test_the_sealed_log_was_timestamped_a_last_time(judges: Judges, judged: Cluster, chain: Path, tmp_path: Path) -> None:
    uid = (judged.get(PLURALS["Tenant"], TENANT) or {})["metadata"]["uid"]
    judged.kubectl("delete", PLURALS["Tenant"], TENANT, "--timeout=300s")
    (tar,) = evidence.exported(judged, uid, tmp_path)
    sealed = evidence.unpack(tar)
    (closing,) = json.loads((sealed.log / "anchors/closing.json").read_bytes())["anchors"]
    assert (sealed.log / "checkpoint").read_text().splitlines()[1] == str(closing["size"])
    assert judges.page(sealed.log) > 1
    assert judges.asked("log", sealed.log, sealed.vkey.read_text().strip()) == "ok"
    verified(tar, "--tsa-ca", f"{CLUSTER}={chain}")


def _audit(cluster: Cluster) -> Report:
    found: Report = (cluster.get(PLURALS["Tenant"], TENANT) or {})["status"]["audit"]
    return found


def _signed(judges: Judges, cluster: Cluster, place: Path, keys: tuple[str, ...]) -> bool:
    """Whether the published checkpoint, as it lies on the volume, carries the signatures of all these keys."""
    place.write_text(cluster.kubectl("exec", "core-0", "-n", JUDGED, "-c", "ledger", "--", "cat", "/data/ledger/checkpoint"))
    return judges.asked("cosigned", place, place.read_text().splitlines()[0], *keys) == "ok"
