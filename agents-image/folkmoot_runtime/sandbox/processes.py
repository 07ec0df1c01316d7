"""Running one command and leaving nothing behind: time limit, bounded output, every descendant killed.

This process makes itself a subreaper (prctl(2), PR_SET_CHILD_SUBREAPER), so that whatever a command detaches — double
forks, setsid, nohup — is re-parented to us and found again as our descendant.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import itertools
import os
import shutil
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

PR_SET_DUMPABLE: Final = 4  # <linux/prctl.h>
PR_SET_CHILD_SUBREAPER: Final = 36
MAX_OUTPUT: Final = 100 * 1024  # bytes shown of one command's output
HEAD: Final = 60 * 1024
MAX_PROCESSES: Final = 256  # of one command; counted here, because RLIMIT_NPROC counts a uid over all pods of a node
MAX_NODE_PROCESSES: Final = 8192  # RLIMIT_NPROC: the last resort when a storm outruns the count
LOOK_SECONDS: Final = 0.2  # between two counts
WEIGH_LOOKS: Final = 10  # counts between two weighings of the workspace
MAX_FILE_KIB: Final = 64 * 1024  # RLIMIT_FSIZE, in bash's unit of 1024 bytes
SWEEPS: Final = 200
SWEEP_SECONDS: Final = 0.02


@dataclass(frozen=True)
class Ran:
    """How a command ended. `exit_code` is None when it was killed at its time limit."""

    exit_code: int | None
    timed_out: bool
    output: str
    stopped: str = ""
    """Why it was killed before its time, '' when it was not."""


@dataclass(frozen=True)
class Jail:
    """How commands are held: `pod` (the pod is the jail), `bwrap`, or `none` (the log says what is not isolated)."""

    isolation: str
    workspace: Path

    def command(self, script: str) -> list[str]:
        """The argument vector. The script travels as an argument of its own, never spliced into another."""
        processes = (
            f"ulimit -u {MAX_NODE_PROCESSES} 2>/dev/null; " if self.isolation == "pod" else ""
        )  # elsewhere it would count the user's own
        limits = f'ulimit -c 0; ulimit -f {MAX_FILE_KIB}; {processes}exec bash -c "$1"'
        bash = ["bash", "-c", limits, "bash", script]
        if self.isolation != "bwrap":
            return bash
        where = str(self.workspace)
        return [
            shutil.which("bwrap") or "bwrap", "--unshare-all", "--die-with-parent", "--ro-bind", "/", "/", "--dev", "/dev",
            "--proc", "/proc", "--tmpfs", "/tmp", "--bind", where, where, "--chdir", where, *bash,  # noqa: S108 - inside the jail
        ]  # fmt: skip

    def environment(self) -> dict[str, str]:
        """What a command sees: nothing of ours. Our interpreter's directory is on the PATH, so that `python` has pytest."""
        path = f"{Path(sys.executable).parent}:{os.environ.get('PATH', '/usr/local/bin:/usr/bin:/bin')}"
        return {
            "PATH": path, "HOME": str(self.workspace), "LANG": "C.UTF-8", "TERM": "dumb", "TMPDIR": "/tmp",  # noqa: S108 - a volume
            "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1",
        }  # fmt: skip


def become_subreaper() -> bool:
    """Adopt orphaned descendants; False where the kernel has no such thing (then only the process group is killed)."""
    libc = ctypes.CDLL(None, use_errno=True)
    return hasattr(libc, "prctl") and libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0


def hide_memory() -> None:
    """Keep a command, which has our uid, from reading this process's memory or attaching to it."""
    libc = ctypes.CDLL(None, use_errno=True)
    if hasattr(libc, "prctl"):
        libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)


def _within_limits() -> str:
    return ""


async def run(jail: Jail, script: str, timeout: float, weigh: Callable[[], str] = _within_limits) -> Ran:
    """Run a script to its end or its limit; afterwards nothing it started is alive. `weigh`, called in a thread every few
    seconds, answers why the command must end now, or ''."""
    # A pipe of our own: asyncio's `wait` would wait for whoever holds its pipe, so for every background process too.
    reader, writer = os.pipe()
    stream = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(stream), os.fdopen(reader, "rb", 0)
    )
    keeper = _Output()
    reading = asyncio.create_task(keeper.read(stream))
    try:
        ran = await _held(await _start(jail, script, writer), timeout, weigh)
        # Whoever held the pipe is dead now, so it ends; a short wait covers what is still in it.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2):
                await reading
    except OSError as error:  # no place for another process on this node, for one
        ran = Ran(None, False, "", f"it could not be started: {error.strerror}")
    finally:
        reading.cancel()
        transport.close()
    return replace(ran, output=keeper.text())


async def _start(jail: Jail, script: str, writer: int) -> asyncio.subprocess.Process:
    try:
        return await asyncio.create_subprocess_exec(
            *jail.command(script), cwd=jail.workspace, env=jail.environment(), stdin=asyncio.subprocess.DEVNULL,
            stdout=writer, stderr=writer, start_new_session=True,
        )  # fmt: skip
    finally:
        os.close(writer)


async def _held(process: asyncio.subprocess.Process, timeout: float, weigh: Callable[[], str]) -> Ran:
    """Watch a process to its end; dead with all it started when this returns or is cancelled."""
    timed_out, stopped = False, ""
    try:
        async with asyncio.timeout(timeout):
            stopped = await _watch(process, weigh)
    except TimeoutError:
        timed_out = True
    finally:
        await kill_descendants(process)
    return Ran(None if timed_out or stopped else process.returncode, timed_out, "", stopped)


async def _watch(process: asyncio.subprocess.Process, weigh: Callable[[], str]) -> str:
    """Until the command ends (''), or is too much (why)."""
    ended = asyncio.create_task(process.wait())
    try:
        for look in itertools.count(1):
            done, _ = await asyncio.wait({ended}, timeout=LOOK_SECONDS)
            if done:
                return ""
            if len(_descendants(os.getpid())) > MAX_PROCESSES:
                return f"more than {MAX_PROCESSES} processes"
            if look % WEIGH_LOOKS == 0 and (reason := await asyncio.to_thread(weigh)):
                return reason
    finally:
        ended.cancel()
    raise AssertionError("unreachable: the count has no end")


async def kill_descendants(direct: asyncio.subprocess.Process | None = None) -> None:
    """Stop, then kill, every descendant of this process, until a look at /proc finds none."""
    for _ in range(SWEEPS):
        if os.getpid() == 1 and _descendants(1):
            # Everything in the pod but us, in one step that no fork can slip through; kill(2).
            with contextlib.suppress(ProcessLookupError):
                os.kill(-1, signal.SIGKILL)
        found = _descendants(os.getpid())
        if direct is not None and direct.returncode is None:
            found.add(direct.pid)
        if not found:
            break
        for number in (signal.SIGSTOP, signal.SIGKILL):  # stopped first: what cannot run cannot fork on
            for pid in found:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, number)
        for pid in found:
            if direct is None or pid != direct.pid:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)  # noqa: ASYNC222 - WNOHANG does not wait; adopted orphans have nobody else
        await asyncio.sleep(SWEEP_SECONDS)
    if direct is not None:
        await direct.wait()


def _descendants(root: int) -> set[int]:
    """Pids below `root`, from one look at /proc; zombies that are not ours to reap are left out."""
    parents: dict[int, int] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            parent = _parent(int(entry))
            if parent is not None:
                parents[int(entry)] = parent
    found: set[int] = set()
    grew = True
    while grew:
        new = {pid for pid, parent in parents.items() if pid not in found and (parent == root or parent in found)}
        grew = bool(new)
        found |= new
    return found


def _parent(pid: int) -> int | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    # The name is in parentheses and may hold anything; what follows the last one is state and parent.
    _, parent = stat.rpartition(")")[2].split()[:2]
    return int(parent)


class _Output:
    """Keeps the beginning and the end of a stream and counts the rest."""

    def __init__(self) -> None:
        self._head = bytearray()
        self._tail = bytearray()
        self._size = 0

    async def read(self, stream: asyncio.StreamReader) -> None:
        """Until end of file; a flood is read and dropped, so that the writer is not blocked for ever."""
        while chunk := await stream.read(65536):
            self._size += len(chunk)
            room = HEAD - len(self._head)
            self._head += chunk[: max(room, 0)]
            self._tail += chunk[max(room, 0) :]
            del self._tail[: max(len(self._tail) - (MAX_OUTPUT - HEAD), 0)]

    def text(self) -> str:
        """What is shown."""
        dropped = self._size - len(self._head) - len(self._tail)
        gap = f"\n[{dropped} bytes left out]\n" if dropped else ""
        return clean(self._head.decode(errors="replace") + gap + self._tail.decode(errors="replace"))


def clean(text: str) -> str:
    """Without control characters but LF and TAB: a model's context is no terminal."""
    return "".join(c for c in text.replace("\r\n", "\n") if c in "\n\t" or c.isprintable())
