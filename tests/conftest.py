"""What tests share: the real tools, a broker and a mongod of the session's own, and a home for each test.

All is started when the first test asks for it, on free ports, below the session's temporary folder. A guardian process
ends whatever is left when the session ends in any way, a kill -9 included.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestration.local import appcds, mongod, processes
from orchestration.local import broker as kafka
from orchestration.local.artifacts import ensure_tools, kafka_jars, mongod_binary
from orchestration.local.home import mark
from orchestration.local.java import Java, find_java
from orchestration.local.ports import free_port
from orchestration.settings import PROJECT_ROOT, OrchestrationSettings

# A session that was started in the background may have these ignored, and all its children with it, which could then be
# neither interrupted nor stopped.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGTERM, signal.SIG_DFL)

# How wide whoever starts the tests wants to read is nothing that commands under test should go by.
os.environ.pop("COLUMNS", None)

READY_SECONDS = 60.0
GUARDIAN = """
import sys
from pathlib import Path
from orchestration.local import processes
homes = [Path(line[:-1]) for line in sys.stdin]  # ends when the test session does
for home in homes:
    for name in processes.recorded_names(home):
        process = processes.recorded(home, name)
        if process is not None:
            processes.stop(process, 2)
"""


@pytest.fixture(scope="session")
def guard() -> Iterator[Callable[[Path], None]]:
    """Tell it a home: none of the processes recorded there survives the session."""
    with subprocess.Popen(
        [sys.executable, "-c", GUARDIAN], stdin=subprocess.PIPE, text=True, cwd=PROJECT_ROOT, start_new_session=True
    ) as guardian:
        assert guardian.stdin is not None
        stream = guardian.stdin

        def add(home: Path) -> None:
            stream.write(f"{home}\n")
            stream.flush()

        yield add
        stream.close()


def stop_all(home: Path, grace_seconds: float = 10) -> None:
    """Stop every process recorded in a home."""
    for name in processes.recorded_names(home):
        process = processes.recorded(home, name)
        if process is not None:
            processes.stop(process, grace_seconds)


@pytest.fixture(scope="session")
def java_home() -> Path:
    """Home of a suitable Java."""
    return find_java(os.environ).path


@pytest.fixture(scope="session")
def java() -> Java:
    """A suitable Java."""
    return find_java(os.environ)


@pytest.fixture(scope="session")
def tools(java: Java) -> Path:
    """The folder of JARs and mongod, fetched when it lacks any."""
    folder = OrchestrationSettings.read().tools
    ensure_tools(folder, java, os.environ)
    appcds.make(folder, java, os.environ, print)
    return folder


@pytest.fixture(scope="session")
def broker(
    tools: Path, java: Java, tmp_path_factory: pytest.TempPathFactory, guard: Callable[[Path], None]
) -> Iterator[str]:
    """Address of the session's Kafka broker. It has no topics: use names of your own, or `create_topics`."""
    home = tmp_path_factory.mktemp("broker")
    guard(home)
    node = kafka.Broker(home / "kafka", free_port(), free_port())
    node.prepare(java, kafka_jars(tools))
    process = processes.start(home, "kafka", node.command(java, kafka_jars(tools)), os.environ)
    try:
        kafka.wait_ready(node.bootstrap, lambda: processes.alive(process), READY_SECONDS)
        yield node.bootstrap
    finally:
        processes.stop(process, 5)


@pytest.fixture(scope="session")
def mongo_uri(tools: Path, tmp_path_factory: pytest.TempPathFactory, guard: Callable[[Path], None]) -> Iterator[str]:
    """Address of the session's mongod. Whoever writes to it cleans up before, not after."""
    home = tmp_path_factory.mktemp("mongod")
    guard(home)
    server = mongod.Mongod(home / "mongo", free_port())
    process = processes.start(home, "mongod", server.command(mongod_binary(tools, os.environ)), os.environ)
    try:
        mongod.wait_ready(server.uri, lambda: processes.alive(process), READY_SECONDS)
        yield server.uri
    finally:
        processes.stop(process, 5)


@pytest.fixture
def home(tmp_path: Path, guard: Callable[[Path], None]) -> Iterator[Path]:
    """A home of the test's own; what was started in it is stopped after the test."""
    folder = tmp_path / "home"
    folder.mkdir()
    mark(folder)
    guard(folder)
    yield folder
    stop_all(folder)
