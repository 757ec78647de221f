"""Detached processes of one home: start, recognise, stop, and the small files by which others watch them."""

import fcntl
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import psutil

from orchestration.local import exit_status
from tickhouse.files import write_json

Wanted = Literal["running", "stopped"]

LOG_BYTES = 50_000_000  # a log larger than this is set aside once, as <name>.log.1, at the next start
START_TIME_TOLERANCE_SECONDS = 2.0
_ORPHAN_GRACE_SECONDS = 2.0
_ENDING_SECONDS = 10.0
_POLL_SECONDS = 0.05

_children: list["subprocess.Popen[bytes]"] = []  # kept only so that ended children are reaped, never consulted


class ProcessError(RuntimeError):
    """A process cannot be started, stopped or recognised; the text says why and what to do."""


@dataclass(frozen=True)
class Process:
    """One started process. `create_time` is in seconds since the epoch, `log` the path of its output."""

    name: str
    pid: int
    create_time: float
    command: list[str]
    log: str


def run_folder(home: Path) -> Path:
    """The folder of records, heartbeats and wanted states, created when missing."""
    folder = home / "run"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def start(home: Path, name: str, command: Sequence[str], environment: Mapping[str, str]) -> Process:
    """Start `command` in a session of its own and record it.

    `environment` is the whole environment of the process: nothing is inherited beside it. Its folder is the home:
    nothing that lies in the caller's is taken for its own. Standard output and error are appended to
    `<home>/logs/<name>.log`. What an earlier process of that name left behind (a JVM whose
    Python was killed) is ended first, so that two never work on one checkpoint.

    Raises ProcessError when a process of that name is alive or the command cannot be executed.
    """
    try:
        return _start(home, name, command, environment)
    except OSError as error:  # a full disk, above all
        raise ProcessError(f"{name} cannot be started: {error}") from error


def _start(home: Path, name: str, command: Sequence[str], environment: Mapping[str, str]) -> Process:
    folder = run_folder(home)
    with _exclusive(folder / f"{name}.lock"):
        earlier = recorded(home, name)
        if earlier is not None:
            if alive(earlier):
                raise ProcessError(f"{name} is already running as process {earlier.pid}; stop it before starting one")
            _end_session_of(earlier)
        log = _prepare_log(home, name)
        with log.open("ab") as output:
            try:
                child = subprocess.Popen(
                    list(command),
                    env=dict(environment),
                    cwd=home,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            except OSError as error:
                raise ProcessError(f"{name} cannot be started: {command[0]}: {error.strerror}") from error
        _children.append(child)
        return record(home, name, child, command, log)


def record(home: Path, name: str, child: "subprocess.Popen[bytes]", command: Sequence[str], log: Path) -> Process:
    """Record a child that has not been waited for, so that others find it. Raises OSError; it is ended then."""
    # As it cannot have been reaped, its start time is readable even if it has ended already.
    process = Process(name, child.pid, psutil.Process(child.pid).create_time(), list(command), str(log))
    try:
        write_json(run_folder(home) / f"{name}.json", asdict(process))
    except OSError:
        # Without a record nobody would ever find it again.
        stop(process, 0)
        raise
    return process


def recorded(home: Path, name: str) -> Process | None:
    """The last process started under that name, alive or not; None when there never was one."""
    path = home / "run" / f"{name}.json"
    try:
        return Process(**json.loads(path.read_bytes()))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise ProcessError(
            f"the process record {path} is damaged ({error}); remove it once no {name} process is running"
        ) from error


def recorded_names(home: Path) -> list[str]:
    """Names of all processes ever started in that home, sorted."""
    names = (path.name.removesuffix(".json") for path in (home / "run").glob("*.json"))
    return sorted(name for name in names if "." not in name)


def alive(process: Process) -> bool:
    """Whether this very process still runs: a reused pid or a zombie does not count.

    Start times are compared with a tolerance, because the kernel states them relative to a boot time that moves with
    corrections of the clock. After a larger correction the command line decides.
    """
    _reap()
    try:
        found = psutil.Process(process.pid)
        if found.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD):
            return False
        if abs(found.create_time() - process.create_time) <= START_TIME_TOLERANCE_SECONDS:
            return True
        return found.cmdline() == process.command
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return False


def suspended(process: Process) -> bool:
    """Whether a process that is alive has been stopped by a signal, and does nothing until it is woken by another."""
    try:
        return psutil.Process(process.pid).status() in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP)
    except psutil.NoSuchProcess:
        return False


def stop(process: Process, grace_seconds: float = 20) -> None:
    """SIGTERM, wait up to `grace_seconds`, then SIGKILL. Returns when the process and its descendants are gone.

    Descendants that outlive a process which ended by itself get two more seconds, then SIGKILL.
    """
    family: dict[int, psutil.Process] = {}
    if alive(process):
        _send(psutil.Process(process.pid), signal.SIGTERM)
        deadline = time.monotonic() + grace_seconds
        while alive(process) and time.monotonic() < deadline:
            family |= {member.pid: member for member in _descendants(process.pid)}
            time.sleep(_POLL_SECONDS)
        if alive(process):
            leader = psutil.Process(process.pid)
            family |= {member.pid: member for member in _descendants(process.pid)}
            _send(leader, signal.SIGKILL)
            _wait_gone([leader], float("inf"))
            for member in family.values():
                _send(member, signal.SIGKILL)
    _wait_gone(list(family.values()), _ORPHAN_GRACE_SECONDS)
    for member in family.values():
        _send(member, signal.SIGKILL)
    _wait_gone(list(family.values()), float("inf"))
    _end_session_of(process)
    _reap()


def exit_code(process: Process) -> int | None:
    """Exit code of an ended process (negative: the signal) if this interpreter started it; None otherwise."""
    child = next((child for child in reversed(_children) if child.pid == process.pid), None)
    if child is None or alive(process):
        return None
    # Its first thread is seen to have ended a moment before the last one has, and with it the process.
    return child.wait(_ENDING_SECONDS)


def how_it_ended(process: Process) -> str | None:
    """How an ended process ended, with the likely cause, if this interpreter started it; None otherwise."""
    code = exit_code(process)
    return None if code is None else exit_status.told(process.name, code)


def read_heartbeat(home: Path, name: str) -> dict[str, Any] | None:
    """The last heartbeat of a stream or of the producer.

    None when there is none, and also when the file is torn by a power cut: it then says nothing about any process
    and the next start writes it anew.
    """
    try:
        heartbeat = json.loads((home / "run" / f"{name}.heartbeat.json").read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return heartbeat if isinstance(heartbeat, dict) else None


def set_wanted(home: Path, name: str, wanted: Wanted) -> None:
    """Say whether a stream should be running; the supervisor makes it so."""
    write_json(run_folder(home) / f"{name}.wanted.json", {"wanted": wanted})


def get_wanted(home: Path, name: str) -> Wanted:
    """Whether a stream should be running; `stopped` when nobody has said anything."""
    path = home / "run" / f"{name}.wanted.json"
    try:
        wanted = json.loads(path.read_bytes())["wanted"]
    except FileNotFoundError:
        return "stopped"
    except (ValueError, TypeError, KeyError) as error:
        raise ProcessError(f"{path} is damaged ({error}); remove it and start the stream again") from error
    return "running" if wanted == "running" else "stopped"


@contextmanager
def _exclusive(path: Path) -> Iterator[None]:
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _prepare_log(home: Path, name: str) -> Path:
    log = home / "logs" / f"{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists() and log.stat().st_size > LOG_BYTES:
        log.replace(log.with_name(f"{name}.log.1"))
    return log


def _descendants(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _end_session_of(process: Process) -> None:
    """SIGKILL whatever is left of the session that a recorded process, now gone, once led.

    The kernel gives a pid to nobody while a session carries it: if the pid is another's now, ours has no members. Nor
    has it after the machine has been started anew.
    """
    if _pid_is_anothers(process) or process.create_time < psutil.boot_time() - START_TIME_TOLERANCE_SECONDS:
        return
    members = []
    for candidate in psutil.process_iter():
        try:
            same_session = os.getsid(candidate.pid) == process.pid and candidate.pid != process.pid
            if same_session and candidate.create_time() >= process.create_time - START_TIME_TOLERANCE_SECONDS:
                members.append(candidate)
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    for member in members:
        _send(member, signal.SIGKILL)
    _wait_gone(members, float("inf"))


def _pid_is_anothers(process: Process) -> bool:
    try:
        began = psutil.Process(process.pid).create_time()
    except psutil.NoSuchProcess:
        return False
    return abs(began - process.create_time) > START_TIME_TOLERANCE_SECONDS


def _send(process: psutil.Process, number: int) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return


def _wait_gone(processes: Sequence[psutil.Process], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while any(map(_running, processes)) and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)


def _running(process: psutil.Process) -> bool:
    _reap()
    try:
        return process.is_running() and process.status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.NoSuchProcess:
        return False


def _reap() -> None:
    for child in _children:
        child.poll()
