"""Running programs, and telling the person at the terminal what happens and how long it took."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
STARTED = time.monotonic()


class Failed(Exception):
    """Something did not come out as it must; the message is for the person at the terminal."""


class NotHere(Failed):
    """This machine cannot have what was asked for; the message says what it lacks."""


def say(text: str = "") -> None:
    """One line on the screen, at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def title(text: str) -> None:
    """A heading of the story."""
    say(f"\n── {text} {'─' * max(0, 100 - len(text))}")


@contextmanager
def step(name: str) -> Iterator[None]:
    """Say what was done, how long it took, and when in the run."""
    begin = time.monotonic()
    outcome = "FAILED"
    try:
        yield
        outcome = ""
    finally:
        now = time.monotonic()
        say(f"{now - STARTED:7.1f} s  {now - begin:6.1f} s  {name} {outcome}".rstrip())


def run(
    argv: Sequence[str | Path], *, text: str | None = None, environment: Mapping[str, str] | None = None, timeout: float = 600,
) -> str:  # fmt: skip
    """What a program printed; `Failed` with the end of its complaint when it ended badly or did not end."""
    done = attempt(argv, text=text, environment=environment, timeout=timeout)
    if done.returncode != 0:
        tail = "\n".join((done.stderr or done.stdout).strip().splitlines()[-15:])
        raise Failed(f"{' '.join(map(str, argv[:6]))} ended with {done.returncode}:\n{tail}")
    return done.stdout


def attempt(
    argv: Sequence[str | Path], *, text: str | None = None, environment: Mapping[str, str] | None = None, timeout: float = 600,
) -> subprocess.CompletedProcess[str]:  # fmt: skip
    """How a program ended, whichever way it did."""
    words = [str(word) for word in argv]
    whole = {**os.environ, **(environment or {})}
    try:
        return subprocess.run(words, input=text, capture_output=True, text=True, env=whole, timeout=timeout, check=False)
    except subprocess.TimeoutExpired as error:
        raise Failed(f"{' '.join(words[:6])} did not end within {timeout:.0f} s") from error


def told(argv: Sequence[str | Path], *, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run something long whose progress (standard error) the person reads; its answer is kept."""
    whole = {**os.environ, **(environment or {})}
    return subprocess.run([str(word) for word in argv], stdout=subprocess.PIPE, text=True, env=whole, check=False)


def show(argv: Sequence[str | Path], *, environment: Mapping[str, str] | None = None) -> int:
    """Run a program whose output the person reads as it comes; its exit code."""
    whole = {**os.environ, **(environment or {})}
    return subprocess.run([str(word) for word in argv], env=whole, check=False).returncode
