"""Following one session to its end: events as they come, over a way that may break and come back.

Used by `session run` and `session watch`. Until the conductor has the session, the object's own conditions say what it
waits for. A way that breaks is opened again from the last event seen; nothing is tried longer than the limit given.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from folkmoot_cli import events
from folkmoot_cli.door import Door
from folkmoot_cli.output import console, rich_table
from folkmoot_core.errors import Missing, Unavailable

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 5.0
QUIET_FAILURES = 3  # ways that broke in a row before the person is told


@dataclass
class Follower:
    """`open_door` makes a fresh way to the conductor; `waiting` says what an unknown session waits for (and raises what
    cannot heal); `sleep` and `clock` are time's."""

    open_door: Callable[[], AbstractContextManager[Door]]
    waiting: Callable[[str], str]
    form: str = "table"
    limit: float = 3600.0
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic

    def follow(self, name: str) -> events.Story:
        """Print until the session has ended; returns its story. Raises `Unavailable` when the limit is reached."""
        story, screen, deadline = events.Story(), Screen(self.form, name), self.clock() + self.limit
        pause, failures = FIRST_PAUSE, 0
        while not story.ended:
            try:
                with self.open_door() as door:
                    for event in door.events(name, story.last):
                        screen.event(event)
                        story.add(event)
                        pause, failures = FIRST_PAUSE, 0
            except Missing:
                screen.notice(self.waiting(name))
            except Unavailable as error:
                failures += 1
                screen.notice(error.message if failures > QUIET_FAILURES else "")
            if story.ended:
                break
            if self.clock() > deadline:
                raise Unavailable(
                    f"session {name} is {story.phase} after {self.limit:.0f} s; follow on with: session watch {name}"
                )
            self.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)
        screen.end(story)
        return story


class Screen:
    """Where events go: lines for people, one JSON object per line for programs."""

    def __init__(self, form: str, name: str) -> None:
        self._form = form
        self._console: Console = console()
        self._said = ""
        if form == "table":
            self._console.print(f"following session {name}", style="dim")

    def event(self, event: dict[str, Any]) -> None:
        """One event."""
        if self._form != "table":
            sys.stdout.write(json.dumps(event) + "\n")
            sys.stdout.flush()
            return
        for line in events.lines(event):
            self._console.print(line.text, style=line.style or None, markup=False)

    def notice(self, text: str) -> None:
        """Something that is not an event, once, on standard error."""
        if text and text != self._said:
            sys.stderr.write(f"  … {text}\n")
            self._said = text

    def end(self, story: events.Story) -> None:
        """Cost per agent, where anything was asked."""
        if self._form == "table" and story.shares:
            self._console.print()
            self._console.print(cost_table(story))


def cost_table(story: events.Story) -> Table:
    """Cost per agent."""
    return rich_table("Cost per agent", events.SUMMARY_COLUMNS, events.summary(story))
