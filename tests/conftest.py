"""For all tests: no event loop but pytest-asyncio's own, and no verdict from a clock."""

from __future__ import annotations

import asyncio

from hypothesis import settings

# No test asserts a duration: hypothesis' default deadline does, and fails on a machine that is busy with something else.
settings.register_profile("folkmoot", deadline=None)
settings.load_profile("folkmoot")


def pytest_configure() -> None:
    """looptime asks the policy for a loop before each test; in a run that begins with plain tests that would make one which
    nobody closes, and a warning is an error here. With the loop set to none it gets none."""
    asyncio.set_event_loop(None)
