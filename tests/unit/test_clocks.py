"""Streams are judged alike whatever happens to the wall clock: it is set, it drifts, or the machine sleeps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from orchestration.supervision.stream_health import StreamView, judge_stream
from spark_jobs import heartbeat as module
from spark_jobs.heartbeat import Heartbeat

_PID = 7
_DAY = 86_400.0


class Clock:
    """Both clocks of a machine."""

    def __init__(self) -> None:
        self.wall = 1_800_000_000.0
        self.steady = 500.0

    def time(self) -> float:
        return self.wall

    def monotonic(self) -> float:
        return self.steady

    def wait(self, seconds: float, drift: float = 1.0) -> None:
        self.steady += seconds
        self.wall += seconds * drift


class Machine:
    """A stream that beats, and whoever looks at it."""

    def __init__(self, path: Path, patch: pytest.MonkeyPatch) -> None:
        self.clock = Clock()
        self._path = path
        self._began = self.clock.wall
        patch.setattr(module, "time", self.clock)
        patch.setattr("os.getpid", lambda: _PID)
        self.heartbeat = Heartbeat(path, "moving", "continuous")
        self.heartbeat.update(state="running")
        self.heartbeat.resume("moving", 0, {})
        self.heartbeat.beat()

    def look(self, *, steady: bool = True) -> StreamView:
        content: dict[str, Any] = json.loads(self._path.read_text())
        return judge_stream(
            pid=_PID,
            alive=True,
            started_at=self._began,
            heartbeat=content,
            now=self.clock.wall,
            lag=1,
            monotonic=self.clock.steady if steady else None,
        )


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path / "moving.heartbeat.json", monkeypatch)


_JUMPS = [sign * seconds for seconds in (90.0, 3 * 3_600.0, _DAY, 400 * _DAY) for sign in (1, -1)]


@pytest.mark.parametrize("jump", _JUMPS)
def test_a_stream_that_beats_is_running_whatever_the_clock_is_set_to(machine: Machine, jump: float) -> None:
    machine.clock.wait(10)
    machine.heartbeat.beat()
    machine.clock.wall += jump
    assert machine.look().state == "running"
    for _ in range(5):
        machine.clock.wait(1)
        machine.heartbeat.beat()
        assert machine.look().state == "running"


@pytest.mark.parametrize("jump", _JUMPS)
def test_a_stream_that_is_silent_is_hung_whatever_the_clock_is_set_to(machine: Machine, jump: float) -> None:
    machine.clock.wall += jump
    machine.clock.wait(46)
    assert machine.look().error == "no heartbeat for 46 s"


@pytest.mark.parametrize("jump", _JUMPS)
def test_a_stream_that_is_stuck_is_hung_whatever_the_clock_is_set_to(machine: Machine, jump: float) -> None:
    machine.clock.wait(100)
    machine.clock.wall += jump
    machine.heartbeat.beat()
    machine.clock.wait(195)
    machine.heartbeat.beat()
    assert machine.look().state == "running"
    machine.clock.wait(10)
    machine.heartbeat.beat()
    assert machine.look().error == "no progress for 305 s, 1 messages wait"


@pytest.mark.parametrize("drift", [0.5, 2.0])
def test_a_clock_that_drifts_changes_nothing(machine: Machine, drift: float) -> None:
    for _ in range(280):
        machine.clock.wait(1, drift)
        machine.heartbeat.beat()
    assert machine.look().state == "running"


def test_by_the_wall_clock_alone_it_would_be_judged_wrongly(machine: Machine) -> None:
    machine.clock.wall += 3_600
    assert machine.look(steady=False).state == "hung"
    machine.clock.wall -= 7_200
    machine.clock.wait(1_000)
    assert machine.look(steady=False).state == "running"
