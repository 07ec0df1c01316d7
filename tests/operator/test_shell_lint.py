"""kopf is the shell and nothing more: these rules are executed here, on the source itself."""

from __future__ import annotations

import ast
from pathlib import Path

import kopf

from folkmoot_operator import shell
from folkmoot_operator.app import WATCHED
from folkmoot_operator.kinds import OWN

ROOT = Path(shell.__file__).parent
ALLOWED = {"event", "login", "startup"}
FORBIDDEN_NAMES = {"index", "timer", "daemon", "worker_limit", "adopt", "TemporaryError", "PermanentError"}


def sources():
    return {path: ast.parse(path.read_text()) for path in sorted(ROOT.rglob("*.py"))}


def imports(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.split(".")[0]


def test_kopf_is_imported_by_the_shell_and_the_process_alone():
    assert {path.name for path, tree in sources().items() if "kopf" in set(imports(tree))} == {"shell.py", "main.py"}


def test_only_allowed_handlers_are_used():
    used, names = set(), set()
    for tree in sources().values():
        if "kopf" not in set(imports(tree)):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute):
                names.add(node.attr)
                if isinstance(node.value, ast.Attribute) and node.value.attr == "on":
                    used.add(node.attr)
    assert used == ALLOWED
    assert not names & FORBIDDEN_NAMES


def test_only_the_client_and_the_endpoints_speak_http():
    speakers = {path.name for path, tree in sources().items() if "aiohttp" in set(imports(tree))}
    assert speakers == {
        "kube.py",
        "conductor_client.py",
        "witness_client.py",
        "endpoint.py",
        "health.py",
        "app.py",
        "main.py",
        "shell.py",
    }


def test_the_settings_of_operators_md():
    settings = shell.settings()
    assert settings.posting.enabled is False
    assert settings.scanning.disabled is True
    assert settings.peering.standalone is True
    assert settings.queueing.worker_limit is None
    assert settings.watching.chunk_size == 500
    assert settings.watching.inactivity_timeout == 70
    assert settings.watching.server_timeout == 600
    assert settings.networking.request_timeout == 30
    assert "kopf" not in settings.persistence.finalizer
    assert len(settings.watching.label_selectors) == len(WATCHED) - len(OWN)
    backoffs = iter(settings.networking.error_backoffs)
    assert all(0 < next(backoffs) <= 61 for _ in range(1000))


def test_handlers_watch_every_kind_and_need_no_finalizer():
    registry = kopf.OperatorRegistry()
    for kind in WATCHED:
        shell.watch(registry, None, kind)
    handlers = registry._watching.get_all_handlers()
    assert {h.id for h in handlers} == {f"watch-{kind.plural}" for kind in WATCHED}
    assert not any(h.requires_finalizer for h in registry._spawning.get_all_handlers())
    assert not registry._changing.get_all_handlers()
    assert not registry._indexing.get_all_handlers()
