"""Ports and environment of the local services, and the lock of a home."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from orchestration.local.home_lock import AlreadyRunning, holder, only_instance
from orchestration.local.java import Java
from orchestration.settings import OrchestrationSettings
from orchestration.stack import services
from orchestration.stack.lifecycle import Stopped, _interrupting, _stop_requests, request_down


def settings(home: Path, **fields: object) -> OrchestrationSettings:
    return OrchestrationSettings(home=home, **fields)  # type: ignore[arg-type]


def test_ports_are_those_asked_for_and_else_free_ones(tmp_path: Path) -> None:
    ports = services.choose_ports(
        settings(tmp_path, port=3000, kafka_port=9092, mongo_port=0, board_port=8501), ui=True
    )
    assert (ports.kafka, ports.ui, ports.board) == (9092, 3000, 8501)
    assert ports.mongo not in (0, 27017)


def test_port_0_gives_every_service_a_free_port_of_its_own(tmp_path: Path) -> None:
    ports = services.choose_ports(settings(tmp_path, port=0, kafka_port=9092, mongo_port=27017), ui=True)
    chosen = [ports.kafka, ports.controller, ports.mongo, ports.code_server, ports.simulator, ports.ui, ports.board]
    assert len(set(chosen)) == len(chosen)
    assert not {0, None, 9092, 27017, 3000, 8501} & set(chosen)
    without_pages = services.choose_ports(settings(tmp_path, port=0), ui=False)
    assert (without_pages.ui, without_pages.board) == (None, None)


def test_children_are_told_everything_that_was_decided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    decided = settings(Path("home"), tools=Path("tools"), symbols=["BTCUSDT", "ETHUSDT"], source="simulator")
    caller = {"PATH": "/bin", "JAVA_HOME": "/another", "TICKHOUSE_SPARK_MASTER": "local[1]"}
    told = services.child_environment(decided, Java(Path("/java"), 21), "http://127.0.0.1:1", caller)
    assert told["TICKHOUSE_HOME"] == str(tmp_path / "home")
    assert told["TICKHOUSE_LAKEHOUSE"] == str(tmp_path / "home" / "lakehouse")
    assert told["TICKHOUSE_JARS"] == str(tmp_path / "tools" / "spark-jars")
    assert told["TICKHOUSE_SYMBOLS"] == "BTCUSDT,ETHUSDT"
    assert (told["TICKHOUSE_SOURCE"], told["TICKHOUSE_BINANCE_URL"]) == ("binance", "http://127.0.0.1:1")
    assert told["JAVA_HOME"] == "/java"
    assert (told["PATH"], told["TICKHOUSE_SPARK_MASTER"]) == ("/bin", "local[1]"), "what the caller said goes through"


def test_only_who_asks_the_outside_is_told_of_a_proxy(tmp_path: Path) -> None:
    java, caller = Java(Path("/java"), 21), {"https_proxy": "http://p:1", "AWS_REGION": "x"}
    ports = services.Ports(1, 2, 3, 4, 5, 6, 7)
    for lakehouse, cloud in ((str(tmp_path), set[str]()), ("s3a://tables", {"code-server", "board"})):
        decided = settings(tmp_path, lakehouse=lakehouse)
        started = [
            *services.dagster(decided, ports),
            services.producer(()),
            services.board(7),
            services.simulator(ports),
        ]
        told = {
            service.name: services.child_environment(decided, java, None, caller, service.outside)
            for service in started
        }
        assert {name for name, variables in told.items() if "AWS_REGION" in variables} == cloud
        assert {name for name, variables in told.items() if "https_proxy" in variables} == {
            "producer",
            "code-server",
        } | cloud
        assert all(variables["DAGSTER_HOME"] == str(tmp_path / "dagster") for variables in told.values())


def test_signals_that_were_ignored_stay_so_and_stop_what_is_started() -> None:
    numbers = (signal.SIGHUP, signal.SIGINT)
    earlier = [signal.signal(number, signal.SIG_IGN) for number in numbers]
    try:
        with _stop_requests() as stop, _interrupting(stop):
            for number in numbers:
                signal.raise_signal(number)
            assert not stop.is_set()
            shown = subprocess.run(["grep", "SigIgn", "/proc/self/status"], capture_output=True, text=True, check=True)
            ignored = int(shown.stdout.split()[1], 16)
            assert not any(ignored & 1 << number - 1 for number in numbers)
            with pytest.raises(Stopped):
                signal.raise_signal(signal.SIGTERM)
        assert [signal.getsignal(number) for number in numbers] == [signal.SIG_IGN] * 2
    finally:
        for number, handler in zip(numbers, earlier, strict=True):
            signal.signal(number, handler)


def test_one_holds_the_home_and_says_who_it_is(tmp_path: Path) -> None:
    home = tmp_path / "home"
    assert holder(home) is None
    with only_instance(home):
        assert holder(home) == os.getpid()
        with pytest.raises(AlreadyRunning, match=f"in use by process {os.getpid()}: stop it"), only_instance(home):
            pass
    assert holder(home) is None


def test_a_killed_holder_lets_go(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from orchestration.local.home_lock import only_instance\n"
        "with only_instance(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        assert holder(tmp_path) == other.pid
        other.kill()
    assert holder(tmp_path) is None
    with only_instance(tmp_path):
        assert holder(tmp_path) == os.getpid()


def test_looking_who_holds_the_home_keeps_nobody_from_it(tmp_path: Path) -> None:
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            holder(tmp_path)

    lookers = [threading.Thread(target=look) for _ in range(2)]
    for looker in lookers:
        looker.start()
    try:
        for _ in range(50):
            with only_instance(tmp_path):
                time.sleep(0.001)
    finally:
        done.set()
        for looker in lookers:
            looker.join()


def test_nothing_is_stopped_where_nothing_runs(tmp_path: Path) -> None:
    assert request_down(tmp_path / "never") is False
    assert not (tmp_path / "never").exists()
    assert request_down(tmp_path) is False
