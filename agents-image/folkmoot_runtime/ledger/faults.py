"""An `os` that fails on demand, to test what the log does then: at one call, at all later ones, or by taking less than given."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass, field

from folkmoot_runtime.durable import RealOs


@dataclass
class FaultyOs(RealOs):
    """`fail[call]` is the errno with which that call fails, from its `after[call]`-th use on (0: at once), `times[call]` times or for ever. A failing sync leaves
    what was written before it; `at_most` bounds what one write takes; `calls` records the calls in order."""

    fail: dict[str, int] = field(default_factory=dict)
    after: dict[str, int] = field(default_factory=dict)
    times: dict[str, int] = field(default_factory=dict)
    at_most: int = 1 << 30
    calls: list[str] = field(default_factory=list)

    def write(self, fd: int, data: bytes) -> int:
        self._reach("write")
        return super().write(fd, data[: self.at_most])

    def pwritev(self, fd: int, buffers: Sequence[bytes], offset: int) -> int:
        self._reach("pwritev")
        return super().pwritev(fd, [buffers[0][: self.at_most]], offset)

    def pread(self, fd: int, length: int, offset: int) -> bytes:
        self._reach("pread")
        return super().pread(fd, length, offset)

    def open(self, path: str, flags: int, mode: int = 0o640) -> int:
        self._reach("open")
        return super().open(path, flags, mode)

    def fsync(self, fd: int) -> None:
        self._reach("fsync")
        super().fsync(fd)

    def fdatasync(self, fd: int) -> None:
        self._reach("fdatasync")
        super().fdatasync(fd)

    def replace(self, src: str, dst: str) -> None:
        self._reach("replace")
        super().replace(src, dst)

    def unlink(self, path: str) -> None:
        self._reach("unlink")
        super().unlink(path)

    def _reach(self, call: str) -> None:
        self.calls.append(call)
        code = self.fail.get(call)
        if code is None:
            return
        left = self.after.get(call, 0)
        if left > 0:
            self.after[call] = left - 1
            return
        if call in self.times:
            self.times[call] -= 1
            if self.times[call] < 0:
                return
        raise OSError(code, os.strerror(code))


EIO, ENOSPC = errno.EIO, errno.ENOSPC
