"""Services kept running, with real processes as small as can be."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestration.local import processes
from orchestration.stack.service_supervisor import ServiceSupervisor
from orchestration.stack.services import Service
from orchestration.supervision.restart_policy import Policy

ENVIRONMENT = {"PATH": os.environ["PATH"]}
AT_ONCE = Policy(first_pause=0, longest_pause=0, limit=3)


class Watched:
    """A keeper, and what it said."""

    def __init__(self, home: Path, policy: Policy = AT_ONCE) -> None:
        self.home = home
        self.said: list[str] = []
        self.keeper = ServiceSupervisor(home, lambda _service: ENVIRONMENT, self.said.append, policy)

    def pid(self, name: str) -> int:
        process = processes.recorded(self.home, name)
        assert process is not None
        return process.pid

    def wait_until_dead(self, name: str) -> None:
        deadline = time.monotonic() + 10
        while self.keeper.alive(name):
            assert time.monotonic() < deadline
            time.sleep(0.02)


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    yield Watched(tmp_path)
    for name in processes.recorded_names(tmp_path):
        process = processes.recorded(tmp_path, name)
        assert process is not None
        processes.stop(process, 1)


def service(name: str, code: str, *needs: str, finite: bool = False) -> Service:
    return Service(name, [sys.executable, "-c", code], needs, finite)


def heartbeat(home: Path, state: str, **more: str) -> str:
    content = {"state": state} | more
    return (
        f"import json, os, pathlib; pathlib.Path({str(home / 'run' / 'producer.heartbeat.json')!r})"
        f".write_text(json.dumps({content!r} | {{'pid': os.getpid()}}));"
    )


def test_what_is_killed_is_started_again_and_said(watched: Watched) -> None:
    watched.keeper.launch(service("kafka", "import time; time.sleep(60)"))
    first = watched.pid("kafka")
    watched.keeper.look()
    assert watched.pid("kafka") == first
    assert watched.said == []
    os.kill(first, signal.SIGKILL)
    watched.wait_until_dead("kafka")
    watched.keeper.look()
    assert watched.keeper.alive("kafka")
    assert watched.pid("kafka") != first
    assert len(watched.said) == 1
    assert watched.said[0].startswith("kafka has ended by SIGKILL: by hand, or by the kernel because memory ran out")
    assert watched.said[0].endswith(f"; starting it again (see {watched.home / 'logs' / 'kafka.log'})")


def test_what_dies_again_and_again_is_given_up_with_the_reason(watched: Watched) -> None:
    watched.keeper.launch(service("mongod", "raise SystemExit(48)"))
    for _ in range(6):
        watched.wait_until_dead("mongod")
        watched.keeper.look()
    assert len(watched.said) == AT_ONCE.limit + 1, watched.said
    assert "mongod is given up, down again after 3 attempts: it ended with exit code 48: its port" in watched.said[-1]
    assert "mongod.log" in watched.said[-1]


def test_one_that_cannot_be_started_for_now_is_tried_again(watched: Watched) -> None:
    watched.keeper.launch(service("x", "import time; time.sleep(60)"))
    os.kill(watched.pid("x"), signal.SIGKILL)
    watched.wait_until_dead("x")
    logs = watched.home / "logs"
    logs.rename(watched.home / "elsewhere")
    logs.write_text("in the way")
    watched.keeper.look()
    assert "x cannot be started" in watched.said[-1]
    logs.unlink()
    watched.keeper.look()
    assert watched.keeper.alive("x")


def test_a_pause_is_kept_between_attempts(tmp_path: Path) -> None:
    watched = Watched(tmp_path, Policy(first_pause=3_600, longest_pause=3_600))
    watched.keeper.launch(service("mongod", "raise SystemExit(14)"))
    for _ in range(4):
        watched.wait_until_dead("mongod")
        watched.keeper.look()
    assert len(watched.said) == 1, "the first restart comes at once, the next one after a pause"


def test_wrong_settings_are_not_tried_again(watched: Watched) -> None:
    code = heartbeat(watched.home, "failed", error="no such file") + "raise SystemExit(2)"
    watched.keeper.launch(service("producer", code, finite=True))
    watched.wait_until_dead("producer")
    first = watched.pid("producer")
    for _ in range(3):
        watched.keeper.look()
    assert watched.pid("producer") == first
    assert [sentence.split(" (see")[0] for sentence in watched.said] == ["producer is left stopped: no such file"]


def test_a_source_that_has_ended_is_left_alone(watched: Watched) -> None:
    watched.keeper.launch(service("producer", heartbeat(watched.home, "ended"), finite=True))
    watched.wait_until_dead("producer")
    for _ in range(3):
        watched.keeper.look()
    assert watched.said == []


def test_that_an_earlier_process_had_ended_its_source_means_nothing(watched: Watched) -> None:
    (watched.home / "run").mkdir(parents=True)
    (watched.home / "run" / "producer.heartbeat.json").write_text('{"pid": 1, "state": "ended"}')
    watched.keeper.launch(service("producer", "raise SystemExit(1)", finite=True))
    watched.wait_until_dead("producer")
    watched.keeper.look()
    assert len(watched.said) == 1


def test_nothing_is_started_before_what_it_needs(watched: Watched) -> None:
    watched.keeper.launch(service("producer", "raise SystemExit(1)", "kafka"))
    watched.wait_until_dead("producer")
    watched.keeper.look()
    assert watched.said == []
    watched.keeper.launch(service("kafka", "import time; time.sleep(60)"))
    watched.keeper.look()
    assert len(watched.said) == 1
