# The body of the kubectl that tests/cli/conftest.py writes: DIRECTORY, PORT and TOKEN are set above this line.
# ruff: noqa: F821
import json
import signal
import sys
from pathlib import Path

place = Path(DIRECTORY)  # type: ignore[name-defined]
words = [w for w in sys.argv[1:] if not w.startswith(("--context", "--kubeconfig"))]
with (place / "calls").open("a") as log:
    log.write(json.dumps(sys.argv[1:]) + "\n")


def fail(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.exit(1)


if words[0] == "config":
    sys.stdout.write("folkmoot-acme")
elif words[0] == "get":
    named = len(words) > 2 and not words[2].startswith("-")
    kind = words[1].split(".")[0]
    if named:
        path = place / "objects" / f"{kind}.{words[2]}.json"
        if not path.exists():
            fail(f'Error from server (NotFound): {words[1]} "{words[2]}" not found')
        sys.stdout.write(path.read_text())
    else:
        found = [json.loads(p.read_text()) for p in sorted((place / "objects").glob(f"{kind}.*"))]
        sys.stdout.write(json.dumps({"items": found}))
elif words[0] in ("apply", "create") and words[1] == "-f":
    manifest = json.loads(sys.stdin.read())
    if "refuse" in manifest["metadata"]["name"]:
        fail('The Session "refuse-me" is invalid: spec.task: Too long: may not be more than 65536 bytes')
    manifest["metadata"]["uid"] = "uid-of-" + manifest["metadata"]["name"]
    with (place / "applied").open("a") as log:
        log.write(json.dumps(manifest) + "\n")
    sys.stdout.write(json.dumps(manifest))
elif words[:2] == ["create", "token"]:
    if (place / "refuse" / words[2]).exists():
        fail(f'Error from server (Forbidden): serviceaccounts "{words[2]}" is forbidden: User "eve" cannot create resource')
    sys.stdout.write(TOKEN)  # type: ignore[name-defined]
elif words[0] == "port-forward":
    sys.stdout.write(f"Forwarding from 127.0.0.1:{PORT} -> 8443\n")  # type: ignore[name-defined]
    sys.stdout.flush()
    signal.pause()
