"""Which process that is, told so that another process can find out later whether it still runs.

It does not depend on the clock, which may be corrected meanwhile. It is made of the Linux kernel's own counters.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import NamedTuple

_PROC = Path("/proc")
_STATE, _STARTED = 0, 19
"""Of the fields of `/proc/PID/stat` that follow the name: the state, and the start in clock ticks since the boot."""
_ENDED = (b"Z", b"X")


class ProcessIdentity(NamedTuple):
    """A process on a machine; `boot` and `namespace` tell whether process ids mean the same here as they did there."""

    pid: int
    started: int
    boot: str
    namespace: str
    host: str

    def text(self) -> str:
        """As one text without losses."""
        return " ".join(map(str, self))


def parse(text: str) -> ProcessIdentity | None:
    """What `text` gave; None for anything else."""
    parts = text.split(" ")
    if len(parts) != len(ProcessIdentity._fields) or not (parts[0].isdigit() and parts[1].isdigit()):
        return None
    return ProcessIdentity(int(parts[0]), int(parts[1]), *parts[2:])


def own() -> ProcessIdentity | None:
    """The identity of this process; None where the kernel does not tell."""
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
        namespace = (_PROC / "self/ns/pid").readlink().name
        return ProcessIdentity(os.getpid(), int(_fields(os.getpid())[_STARTED]), boot, namespace, socket.gethostname())
    except (OSError, LookupError):
        return None


def running(other: ProcessIdentity, here: ProcessIdentity | None) -> bool | None:
    """Whether a process still runs, looked at from `here`, one's own identity; None where that cannot be told.

    A process id that is another's by now does not count, nor does a process that has ended and is not reaped yet.
    """
    if here is None:
        return None
    if (other.boot, other.namespace) == (here.boot, here.namespace):
        return is_running(other.pid, other.started)
    # This machine was started anew since; or it is another machine or container, into which nobody looks from here.
    return False if other.host == here.host and other.boot != here.boot else None


def is_running(pid: int, started: int | None = None) -> bool:
    """Whether there is a process of that id, begun at that tick, which has not ended."""
    try:
        fields = _fields(pid)
    except (FileNotFoundError, ProcessLookupError):
        return False
    return fields[_STATE] not in _ENDED and started in (None, int(fields[_STARTED]))


def _fields(pid: int) -> list[bytes]:
    # The name, in parentheses, may have any character in it.
    return (_PROC / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()
