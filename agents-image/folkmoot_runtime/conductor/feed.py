"""Who wants to hear of a session's next event: the event streams and the reporter. Only a bell; the events are in the store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Feed:
    """`changed` after each commit; `wait` for the next one of a session; `listen` to all."""

    def __init__(self) -> None:
        self._bells: dict[str, asyncio.Event] = {}
        self._listeners: list[Callable[[str], None]] = []

    def changed(self, uid: str) -> None:
        """A session has new events."""
        bell = self._bells.pop(uid, None)
        if bell is not None:
            bell.set()
        for listener in self._listeners:
            listener(uid)

    def bell(self, uid: str) -> asyncio.Event:
        """Set at the next change after this call. Take it before reading, so that nothing falls between."""
        return self._bells.setdefault(uid, asyncio.Event())

    def listen(self, listener: Callable[[str], None]) -> None:
        """Call `listener(uid)` at each change."""
        self._listeners.append(listener)
