"""Doing each kind of fault to a running stack."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

import psutil

from tests.chaos import failpoints
from tests.chaos.plan import LONG_CUT_SECONDS, SHORT_CUT_SECONDS, Fault
from tests.chaos.power import PowerFolder
from tests.chaos.victims import Stack
from tickhouse.contract.topology import JOBS

_REACH_SECONDS = 60.0
"""How long a failpoint may stay armed without being reached."""
_GLANCE_SECONDS = 0.001
_LOOK_SECONDS = 0.1
_SUSPENDED_SECONDS = {"kafka": 12.0, "mongod": 12.0, "producer": 20.0, "daemon": 20.0, "code-server": 20.0}
_STREAM_SUSPENDED_SECONDS = 60.0
"""Longer than the supervisor takes a silent stream for being at work, and than a transaction may last."""
_FULL_SECONDS = 15.0
_ZOMBIE_SECONDS = 90.0
_WORKER_SECONDS = 30.0


class NotReached(Exception):
    """The moment for this fault has not come: nothing was broken."""


@dataclass(frozen=True)
class Tools:
    """What faults need beside the stack."""

    random: Random
    disk: Path | None
    """A small file system that the stack lives on; None if there is none."""
    power: PowerFolder | None
    """A disk that forgets on a power cut what was not synced, if the stack lives on one."""
    long_cut: bool
    """Whether this cut of the broker is a long one."""


def strike(stack: Stack, fault: Fault, tools: Tools) -> float:
    """Break it; returns the moment (epoch seconds) from which the recovery counts. Raises NotReached."""
    kind, _, name = fault.kind.partition(" ")
    if kind == "failpoint":
        if name in failpoints.IN_PYTHON:
            return _reach(stack, name, fault.target, "session" if fault.target in JOBS else "process")
        return _watch(stack, name, fault.target, tools.random)
    return _DEEDS[fault.kind](stack, fault.target, tools)


def _reach(stack: Stack, failpoint: str, target: str, action: str) -> float:
    failpoints.forget(stack.folder, failpoint, target)
    failpoints.arm(stack.folder, failpoint, target, action)
    if target == "maintenance":
        try:
            stack.launch_maintenance()
        except subprocess.SubprocessError as error:
            failpoints.disarm(stack.folder, failpoint, target)
            raise NotReached(f"Dagster does not launch the maintenance: {error}") from error
    deadline = time.monotonic() + _REACH_SECONDS
    while failpoints.hit(stack.folder, failpoint, target) is None:
        if time.monotonic() > deadline and failpoints.disarm(stack.folder, failpoint, target):
            raise NotReached(f"nobody came to {failpoint} within {_REACH_SECONDS:.0f} s")
        time.sleep(_LOOK_SECONDS)
    return time.time()


def _watch(stack: Stack, failpoint: str, stream: str, random: Random) -> float:
    """Kill a stream at the moment at which a file appears."""
    folder, is_it = _FILES[failpoint](stack, stream, random)
    # Only as long as the same process lives is what appears its doing.
    leader = stack.leader(stream)
    if leader is None or not folder.is_dir():
        raise NotReached(f"{stream} is not at work")
    known = set(folder.iterdir())
    deadline = time.monotonic() + _REACH_SECONDS
    while not any(is_it(path.name) for path in set(folder.iterdir()) - known):
        if time.monotonic() > deadline or not leader.is_running():
            raise NotReached(f"no file came into {folder}")
        time.sleep(_GLANCE_SECONDS)
    failpoints.kill_session(leader.pid)
    return time.time()


def _checkpoint(stack: Stack, query: str) -> Path:
    return Path(stack.endpoints.checkpoints) / query


def _log(name: str) -> Callable[[Stack, str, Random], tuple[Path, Callable[[str], bool]]]:
    def files(stack: Stack, stream: str, _random: Random) -> tuple[Path, Callable[[str], bool]]:
        return _checkpoint(stack, stream) / name, str.isdigit

    return files


def _state(stack: Stack, stream: str, _random: Random) -> tuple[Path, Callable[[str], bool]]:
    # Whatever appears: the unfinished file comes first.
    return _checkpoint(stack, stream) / "state" / "0" / "0", lambda _name: True


def _delta(stack: Stack, stream: str, random: Random) -> tuple[Path, Callable[[str], bool]]:
    table = random.choice(JOBS[stream].tables)
    return Path(stack.endpoints.lakehouse) / table / "_delta_log", lambda name: name.endswith(".json")


_FILES = {
    "offset-log-written": _log("offsets"),
    "commit-log-written": _log("commits"),
    "state-upload": _state,
    "delta-log-written": _delta,
}


def _send(process: psutil.Process | None, number: int, whom: str) -> float:
    if process is None:
        time.sleep(1)  # it may be back by the next attempt
        raise NotReached(f"{whom} is not there")
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess as error:
        raise NotReached(f"{whom} has just ended") from error
    return time.time()


def _kill_stream(stack: Stack, target: str, _tools: Tools) -> float:
    leader = stack.leader(target)
    if leader is None:
        raise NotReached(f"{target} does not run")
    failpoints.kill_session(leader.pid)
    return time.time()


def _kill_driver(stack: Stack, target: str, _tools: Tools) -> float:
    return _send(stack.leader(target), signal.SIGKILL, target)


def _kill_jvm(stack: Stack, target: str, _tools: Tools) -> float:
    return _send(stack.part(target, "JVM"), signal.SIGKILL, f"the JVM of {target}")


def _kill_worker(stack: Stack, target: str, _tools: Tools) -> float:
    deadline = time.monotonic() + _WORKER_SECONDS
    while (worker := stack.part(target, "worker")) is None and time.monotonic() < deadline:
        time.sleep(_LOOK_SECONDS)
    return _send(worker, signal.SIGKILL, f"a worker of {target}")


def _kill_run(stack: Stack, _target: str, _tools: Tools) -> float:
    deadline = time.monotonic() + _REACH_SECONDS
    while (worker := stack.run_worker()) is None and time.monotonic() < deadline:
        time.sleep(_LOOK_SECONDS)
    return _send(worker, signal.SIGKILL, "a run")


def _suspend(stack: Stack, target: str, _tools: Tools) -> float:
    suspended = stack.members(target) if target in JOBS else [stack.leader(target)]
    for process in suspended:
        _send(process, signal.SIGSTOP, target)
    began = time.time()
    deadline = time.monotonic() + _SUSPENDED_SECONDS.get(target, _STREAM_SUSPENDED_SECONDS)
    # A stream that is found silent is killed and started anew: then there is nobody left to wake.
    while time.monotonic() < deadline and any(process is not None and process.is_running() for process in suspended):
        time.sleep(_LOOK_SECONDS)
    for process in suspended:
        if process is not None and process.is_running():
            process.resume()
    return began if target in JOBS else time.time()


def _zombie(stack: Stack, target: str, _tools: Tools) -> float:
    """A worker falls asleep before it commits, all others of the stream die, and it wakes beside its successor."""
    _reach(stack, "before-transaction-commit", target, "zombie")
    pid = failpoints.hit(stack.folder, "before-transaction-commit", target)
    assert pid is not None
    sleeper = psutil.Process(pid)
    leader = stack.leader(target)
    if leader is not None:
        failpoints.kill_session(leader.pid)
    struck = time.time()
    deadline = time.monotonic() + _ZOMBIE_SECONDS
    while not stack.back(target, struck) and time.monotonic() < deadline:
        time.sleep(_LOOK_SECONDS)
    sleeper.resume()
    # With nobody left to answer to it ends once it has tried to commit.
    gone, _ = psutil.wait_procs([sleeper], timeout=_ZOMBIE_SECONDS)
    if not gone:
        sleeper.kill()
        raise RuntimeError(f"the zombie of {target} has not ended within {_ZOMBIE_SECONDS:.0f} s of waking")
    return struck


def _kill_everything(stack: Stack, _target: str, tools: Tools) -> float:
    stack.kill()
    stack.start_again()
    return time.time()


def _power_cut(stack: Stack, _target: str, tools: Tools) -> float:
    if tools.power is None:
        raise NotReached("the stack does not live on a disk that can be cut off: --power")
    tools.power.cut()
    stack.kill()
    tools.power.switch_off()
    tools.power.switch_on()
    stack.start_again()
    return time.time()


def _fill_disk(stack: Stack, _target: str, tools: Tools) -> float:
    if tools.disk is None:
        raise NotReached("the stack does not live on a small file system of its own")
    filler = tools.disk / "filler"
    handle = os.open(filler, os.O_WRONLY | os.O_CREAT)
    try:
        size = 1 << 24
        written = 0
        while size:
            try:
                os.posix_fallocate(handle, written, size)
                written += size
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                size //= 2
        # What others free in the meantime is taken as well.
        deadline = time.monotonic() + _FULL_SECONDS
        while time.monotonic() < deadline:
            try:
                os.posix_fallocate(handle, written, 4096)
                written += 4096
            except OSError:
                time.sleep(_LOOK_SECONDS)
    finally:
        os.close(handle)
        filler.unlink()
    return time.time()


def _cut_broker(stack: Stack, _target: str, tools: Tools) -> float:
    stack.proxy.cut()
    try:
        time.sleep(LONG_CUT_SECONDS if tools.long_cut else SHORT_CUT_SECONDS)
    finally:
        stack.proxy.restore()
    return time.time()


_DEEDS: dict[str, Callable[[Stack, str, Tools], float]] = {
    "kill stream": _kill_stream,
    "kill driver": _kill_driver,
    "kill JVM": _kill_jvm,
    "kill worker": _kill_worker,
    "kill service": _kill_driver,
    "kill run": _kill_run,
    "suspend stream": _suspend,
    "suspend service": _suspend,
    "zombie": _zombie,
    "kill everything": _kill_everything,
    "power cut": _power_cut,
    "fill disk": _fill_disk,
    "cut broker": _cut_broker,
}
