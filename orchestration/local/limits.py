"""What the system lets one user and one process have, and what a stack needs of it."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import suppress

import psutil

_GB = 1_000_000_000
LEAST: dict[int, tuple[int, str, str]] = {
    resource.RLIMIT_NOFILE: (2_048, "n", "open files of a process"),
    resource.RLIMIT_AS: (8 * _GB, "v", "address space of a process"),
    resource.RLIMIT_DATA: (4 * _GB, "d", "memory of a process"),
    resource.RLIMIT_FSIZE: (2 * _GB, "f", "size of a file"),
    resource.RLIMIT_CPU: (10**9, "t", "CPU time of a process"),
}
"""For each limit that there may be the least that will do, what `ulimit` calls it, and what it is of."""
LEAST_TASKS = 800
"""Threads of the programs of a stack, with room for runs."""
_FILES = 65_536


def raise_limits() -> None:
    """Let the stack's programs have as many open files as the system allows: the usual soft limit is scarce."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def too_low() -> Iterator[str]:
    """Each limit that a stack would run into, with its remedy."""
    for number, (least, letter, name) in LEAST.items():
        soft, hard = resource.getrlimit(number)
        limit = hard if number == resource.RLIMIT_NOFILE else soft  # that one is raised
        if limit != resource.RLIM_INFINITY and limit < least:
            yield (
                f"The {name} may be {_shown(number, limit)} at most, and {_shown(number, least)} are needed: "
                f"raise the limit (`ulimit -{letter}`, LimitXXX= of a systemd unit, /etc/security/limits.conf)."
            )
    yield from _tasks()


def _tasks() -> Iterator[str]:
    limit = resource.getrlimit(resource.RLIMIT_NPROC)[0]
    if limit == resource.RLIM_INFINITY or os.geteuid() == 0:  # root is not held to it
        return
    used = sum(
        process.info["num_threads"] or 0
        for process in psutil.process_iter(["uids", "num_threads"])
        if process.info["uids"] is not None and process.info["uids"].real == os.getuid()
    )
    if limit - used < LEAST_TASKS:
        yield (
            f"The user may have {limit} processes and threads, {used} are there, and a stack needs {LEAST_TASKS}: "
            "raise the limit (`ulimit -u`, TasksMax= of a systemd unit, /etc/security/limits.conf), or stop something."
        )


def _shown(number: int, amount: int) -> str:
    if number in (resource.RLIMIT_AS, resource.RLIMIT_DATA, resource.RLIMIT_FSIZE):
        return f"{amount / _GB:.1f} GB"
    return f"{amount:,} s" if number == resource.RLIMIT_CPU else f"{amount:,}"
