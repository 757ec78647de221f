"""CPU time and memory of processes with all their children."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

import psutil

from orchestration.local.processes import Process, alive

_LOOK_SECONDS = 4.0


class CpuMeter:
    """CPU seconds of processes and all their children, also of those that have ended, as they were seen last.

    What the system keeps of ended children is of no use: Spark's Python daemon has it forget them.
    """

    def __init__(self, leaders: list[Process]) -> None:
        self._leaders = leaders
        self._seen: dict[psutil.Process, float] = {}

    def seconds(self) -> float:
        """So far. What a process used after the last call before its end is missed, so call it often."""
        for member in _family(self._leaders):
            try:
                times = member.cpu_times()
            except psutil.NoSuchProcess:
                continue
            self._seen[member] = times.user + times.system
        return sum(self._seen.values())


class LargestMemory:
    """The most memory that processes have had at once, as far as it was looked at.

    The system counts pages for it, a tenth of a second of a core for some gigabytes, which those who are measured lack:
    so calls of `look` within four seconds of the last look do nothing.
    """

    def __init__(self, leaders: list[Process]) -> None:
        self._leaders = leaders
        self._next = 0.0
        self.megabytes = 0.0

    def look(self) -> None:
        """Look how much it is now."""
        if time.monotonic() >= self._next:
            self.megabytes = max(self.megabytes, _megabytes(self._leaders))
            self._next = time.monotonic() + _LOOK_SECONDS


def _family(leaders: Iterable[Process]) -> Iterator[psutil.Process]:
    for leader in leaders:
        if not alive(leader):
            continue
        try:
            found = psutil.Process(leader.pid)
            yield from (found, *found.children(recursive=True))
        except psutil.NoSuchProcess:
            continue


def _megabytes(leaders: Iterable[Process]) -> float:
    """Memory now, as the proportional set size: pages that forked workers share count once."""
    total = 0.0
    for member in _family(leaders):
        try:
            total += member.memory_full_info().pss / 1e6
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return total
