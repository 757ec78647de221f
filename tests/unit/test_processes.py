"""Detached processes, with real processes."""

import errno
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from orchestration.local import processes
from orchestration.local.processes import Process, ProcessError
from tickhouse import files

ENVIRONMENT = {"PATH": os.environ["PATH"]}
SLEEP = ["sleep", "60"]


def wait_until(condition, seconds: float = 10) -> None:  # type: ignore[no-untyped-def]
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "not reached in time"
        time.sleep(0.02)


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_a_process_is_started_detached_recorded_and_stopped(tmp_path: Path) -> None:
    process = processes.start(tmp_path, "kafka", SLEEP, ENVIRONMENT)
    try:
        assert processes.alive(process)
        assert os.getsid(process.pid) == process.pid != os.getsid(0)
        assert processes.recorded(tmp_path, "kafka") == process
        assert processes.recorded_names(tmp_path) == ["kafka"]
    finally:
        processes.stop(process)
    assert not processes.alive(process)
    assert processes.exit_code(process) == -15


def test_the_environment_is_exactly_the_one_given_and_output_goes_to_the_log(tmp_path: Path) -> None:
    code = "import os, sys; print(sorted(os.environ)); print(sys.stdin.read() == '', file=sys.stderr)"
    process = processes.start(tmp_path, "p", python(code), {"ONLY": "this", "LC_CTYPE": "C.UTF-8"})
    wait_until(lambda: not processes.alive(process))
    assert Path(process.log) == tmp_path / "logs" / "p.log"
    assert sorted(Path(process.log).read_text().splitlines()) == ["True", "['LC_CTYPE', 'ONLY']"]


def test_a_second_process_of_that_name_is_refused_while_the_first_lives(tmp_path: Path) -> None:
    process = processes.start(tmp_path, "moving", SLEEP, ENVIRONMENT)
    with pytest.raises(ProcessError, match=f"moving is already running as process {process.pid}"):
        processes.start(tmp_path, "moving", SLEEP, ENVIRONMENT)
    processes.stop(process)
    second = processes.start(tmp_path, "moving", SLEEP, ENVIRONMENT)
    processes.stop(second)


def test_of_many_starters_at_once_one_wins(tmp_path: Path) -> None:
    def attempt(_: int) -> Process | None:
        try:
            return processes.start(tmp_path, "trend", SLEEP, ENVIRONMENT)
        except ProcessError:
            return None

    with ThreadPoolExecutor(8) as pool:
        started = [process for process in pool.map(attempt, range(8)) if process is not None]
    for process in started:
        processes.stop(process)
    assert len(started) == 1


def test_a_command_that_does_not_exist_is_told(tmp_path: Path) -> None:
    with pytest.raises(ProcessError, match="x cannot be started: /no/such/command: No such file"):
        processes.start(tmp_path, "x", ["/no/such/command"], ENVIRONMENT)
    assert processes.recorded(tmp_path, "x") is None


def test_a_process_that_cannot_be_recorded_does_not_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_path: Path, _content: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(processes, "write_json", full)
    before = set(psutil.Process().children())
    with pytest.raises(processes.ProcessError, match=r"x cannot be started: .+ No space left on device"):
        processes.start(tmp_path, "x", ["sleep", "60"], os.environ)
    assert not [child for child in set(psutil.Process().children()) - before if child.is_running()]


def test_a_zombie_is_dead() -> None:
    child = subprocess.Popen(["true"])
    try:
        found = psutil.Process(child.pid)
        wait_until(lambda: found.status() == psutil.STATUS_ZOMBIE)
        assert not processes.alive(Process("z", child.pid, found.create_time(), ["true"], ""))
    finally:
        child.wait()


def test_a_reused_pid_is_dead_and_a_small_correction_of_the_clock_is_not(tmp_path: Path) -> None:
    process = processes.start(tmp_path, "p", SLEEP, ENVIRONMENT)
    try:
        stranger = replace(process, create_time=process.create_time - 3600, command=["other"])
        assert not processes.alive(stranger)
        assert processes.alive(replace(process, create_time=process.create_time - 1))
        moved = replace(process, create_time=process.create_time - 3600)  # same command: only the clock was corrected
        assert processes.alive(moved)
        processes.stop(stranger)
        assert processes.alive(process), "a process that only shares the pid must not be stopped"
    finally:
        processes.stop(process)


def test_who_ignores_sigterm_is_killed_with_all_descendants(tmp_path: Path) -> None:
    child = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
    parent = (
        "import signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        f"same = subprocess.Popen([sys.executable, '-c', {child!r}])\n"
        f"own = subprocess.Popen([sys.executable, '-c', {child!r}], start_new_session=True)\n"
        "print(same.pid, own.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    process = processes.start(tmp_path, "p", python(parent), ENVIRONMENT)
    log = Path(process.log)
    wait_until(lambda: len(log.read_text().split()) == 2)
    pids = [int(word) for word in log.read_text().split()]
    time.sleep(0.3)  # the children install their handlers
    began = time.monotonic()
    processes.stop(process, grace_seconds=0.5)
    assert time.monotonic() - began >= 0.5
    assert all(map(gone, [process.pid, *pids]))


def test_what_a_killed_process_left_behind_is_ended_before_the_next_start(tmp_path: Path) -> None:
    code = "import subprocess, time; print(subprocess.Popen(['sleep', '60']).pid, flush=True); time.sleep(60)"
    process = processes.start(tmp_path, "p", python(code), ENVIRONMENT)
    log = Path(process.log)
    wait_until(lambda: log.read_text().strip() != "")
    orphan = int(log.read_text())
    os.kill(process.pid, 9)
    wait_until(lambda: not processes.alive(process))
    assert not gone(orphan)
    second = processes.start(tmp_path, "p", SLEEP, ENVIRONMENT)
    assert gone(orphan)
    processes.stop(second)


def test_the_session_of_a_stranger_with_a_reused_pid_is_left_alone(tmp_path: Path) -> None:
    code = "import subprocess, time; print(subprocess.Popen(['sleep', '60']).pid, flush=True); time.sleep(60)"
    process = processes.start(tmp_path, "p", python(code), ENVIRONMENT)
    log = Path(process.log)
    wait_until(lambda: log.read_text().strip() != "")
    processes.stop(replace(process, create_time=process.create_time - 3600, command=["other"]))
    assert processes.alive(process)
    assert not gone(int(log.read_text()))
    processes.stop(process)


def test_stopping_the_dead_is_quiet(tmp_path: Path) -> None:
    process = processes.start(tmp_path, "p", ["true"], ENVIRONMENT)
    wait_until(lambda: not processes.alive(process))
    processes.stop(process)


def test_a_damaged_record_is_told_and_a_torn_heartbeat_is_none(tmp_path: Path) -> None:
    run = processes.run_folder(tmp_path)
    (run / "kafka.json").write_text("")
    (run / "moving.heartbeat.json").write_text('{"job": ')
    with pytest.raises(ProcessError, match="remove it once no kafka process is running"):
        processes.recorded(tmp_path, "kafka")
    assert processes.read_heartbeat(tmp_path, "moving") is None
    (run / "moving.heartbeat.json").write_text('{"job": "moving"}')
    assert processes.read_heartbeat(tmp_path, "moving") == {"job": "moving"}
    assert processes.read_heartbeat(tmp_path, "nobody") is None


def test_wanted_is_stopped_until_said_otherwise(tmp_path: Path) -> None:
    assert processes.get_wanted(tmp_path, "moving") == "stopped"
    processes.set_wanted(tmp_path, "moving", "running")
    assert processes.get_wanted(tmp_path, "moving") == "running"
    processes.set_wanted(tmp_path, "moving", "stopped")
    assert processes.get_wanted(tmp_path, "moving") == "stopped"
    assert processes.recorded_names(tmp_path) == []


def test_a_large_log_is_set_aside_at_the_next_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "LOG_BYTES", 10)
    for _ in range(2):
        process = processes.start(tmp_path, "p", ["echo", "more than ten bytes"], ENVIRONMENT)
        wait_until(lambda process=process: not processes.alive(process))
    assert (tmp_path / "logs" / "p.log").read_text() == "more than ten bytes\n"
    assert (tmp_path / "logs" / "p.log.1").read_text() == "more than ten bytes\n"


def test_json_is_replaced_in_one_step(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    files.write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        files.write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]
