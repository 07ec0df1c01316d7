"""An `os` whose syncs do nothing, for tests that open a log thousands of times and lose no power meanwhile."""

from __future__ import annotations

from folkmoot_runtime.durable import RealOs


class QuickOs(RealOs):
    """The real one without waiting for the disk."""

    def fsync(self, fd: int) -> None:
        """Nothing."""

    def fdatasync(self, fd: int) -> None:
        """Nothing."""
