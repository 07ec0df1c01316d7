"""Running programs and waiting for them, and telling the person at the terminal what happens."""

import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import CommandFailed


def say(text: str) -> None:
    """One line of progress for the person; on stderr, so that stdout holds the answer alone (`KUBECONFIG=$(up)`)."""
    with suppress(BrokenPipeError):  # nobody reads on (`up 2>&1 | head`); the work is wanted all the same
        sys.stderr.write(text + "\n")
        sys.stderr.flush()


def answer(text: str) -> None:
    """What was asked for, on stdout."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


@contextmanager
def step(name: str) -> Iterator[None]:
    """Says how long a step took; a step that failed says so on its line, and the error goes on its way."""
    start = time.monotonic()
    outcome = "FAILED"
    try:
        yield
        outcome = ""
    finally:
        say(f"{time.monotonic() - start:7.1f} s  {name} {outcome}".rstrip())


def run(
    argv: Sequence[str | Path],
    *,
    text: str | None = None,
    environment: Mapping[str, str] | None = None,
    directory: Path | None = None,
) -> str:
    """What the program printed; CommandFailed with the end of its stderr if it ended badly."""
    words = [str(word) for word in argv]
    done = subprocess.run(words, input=text, capture_output=True, text=True, env=environment, cwd=directory, check=False)
    if done.returncode != 0:
        raise CommandFailed(words, done.returncode, done.stderr or done.stdout)
    return done.stdout


def succeeds(argv: Sequence[str | Path]) -> bool:
    """Whether the program ended well; its output is of no interest."""
    return subprocess.run([str(word) for word in argv], capture_output=True, check=False).returncode == 0


def stream(argv: Sequence[str | Path], log: Path, *, environment: Mapping[str, str] | None = None) -> None:
    """Run something long; all it says goes to `log`, and the end of that into the error."""
    words = [str(word) for word in argv]
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as output:
        done = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment, check=False)
    if done.returncode != 0:
        raise CommandFailed(words, done.returncode, f"{log.read_text(errors='replace')}\n(whole log: {log})")
