"""Class-data archives: what every JVM of the stack would otherwise read, parse and verify anew at each start.

A stream's JVM loads some twenty thousand classes before it does anything; from an archive it takes less than half the
time, which is what a crashed stream is down for. The archives are made once, by a rehearsal: a broker and a stream job
do for a moment what they are there for, and their JVMs write down what they have loaded when they end.

Java itself checks that an archive fits its version and class path, and goes without where it does not.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path

from confluent_kafka import KafkaException, Producer

from orchestration.local import broker as kafka
from orchestration.local import processes
from orchestration.local.artifacts import FetchFailed, claim, kafka_jars, locked, spark_jars
from orchestration.local.java import Java
from orchestration.local.ports import free_port
from orchestration.settings import PROJECT_ROOT
from spark_jobs.settings import as_spark_reads
from tickhouse import environment
from tickhouse.contract.names import TICKS_TOPIC
from tickhouse.contract.topology import TOPICS
from tickhouse.environment import PREFIX

_BROKER, _STREAM, _BASE = "broker", "stream", "base"
_READY_SECONDS = 60.0
_JOB_SECONDS = 240.0
_QUIET = "-Xlog:cds*=off"


def _archive(tools: Path, java: Java, name: str) -> Path:
    return tools / "class-data" / f"{name}-{_fingerprint(tools, java)}.jsa"


def _fingerprint(tools: Path, java: Java) -> str:
    """Of everything that an archive depends on: another Java or another JAR asks for another archive."""
    pyspark = find_spec("pyspark")  # importing it would take a second
    assert pyspark is not None and pyspark.origin is not None
    folders = (spark_jars(tools), kafka_jars(tools), Path(pyspark.origin).parent / "jars")
    files = [java.path / "lib" / "modules", *(jar for folder in folders for jar in sorted(folder.glob("*.jar")))]
    told = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files if file.exists()]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]


def broker_options(tools: Path, java: Java) -> list[str]:
    """JVM options of the broker; none as long as there is no archive."""
    return _use(tools, java, _BROKER)


def stream_options(tools: Path, java: Java) -> list[str]:
    """JVM options of a stream's driver; none as long as there is no archive."""
    return _use(tools, java, _STREAM)


def _use(tools: Path, java: Java, name: str) -> list[str]:
    archives = [_archive(tools, java, _BASE), _archive(tools, java, name)]
    if not all(archive.exists() for archive in archives):
        return []
    return [f"-XX:SharedArchiveFile={os.pathsep.join(map(str, archives))}", _QUIET]


def complete(tools: Path, java: Java) -> bool:
    """Whether the archives are there."""
    return bool(broker_options(tools, java) and stream_options(tools, java))


def make(tools: Path, java: Java, given: Mapping[str, str], say: Callable[[str], None]) -> None:
    """Make the archives, unless they are there. Without them all works as well, only later: a failure is told and left.

    The JARs must be there. `given` is the environment of the caller.
    """
    if complete(tools, java):
        return
    folder = tools / "class-data"
    try:
        claim(tools, [folder.name])
        folder.mkdir(exist_ok=True)
        with locked(tools / ".class-data.lock"):
            if not complete(tools, java):
                _make(folder, tools, java, given, say)
    except FetchFailed as error:
        say(f"Java is not prepared, and so takes longer to start: {error}")
    except OSError as error:
        say(
            f"Java is not prepared, and so takes longer to start ({error.filename}: {error.strerror}): `make tools` as "
            f"the owner of {tools} prepares it."
        )


def _make(folder: Path, tools: Path, java: Java, given: Mapping[str, str], say: Callable[[str], None]) -> None:
    for outdated in folder.glob("*.jsa"):
        outdated.unlink()
    say("Preparing Java, this once, so that everything starts in half the time from now on")
    with tempfile.TemporaryDirectory(dir=folder) as home:
        try:
            _Rehearsal(Path(home), tools, java, given).run()
        except (kafka.NotReady, processes.ProcessError, KafkaException, OSError, subprocess.SubprocessError) as error:
            say(f"Preparing Java has failed: all works without that as well, and takes longer to start: {error}")


class _Rehearsal:
    """A broker and the `moving` stream in a home of their own, from start to end."""

    def __init__(self, home: Path, tools: Path, java: Java, given: Mapping[str, str]) -> None:
        self._home = home
        self._tools = tools
        self._java = java
        scratch = environment.scratch_folder(home)
        variables = environment.child_environment(given, scratch, environment.find_account(given, scratch))
        # What the caller has set is for the stack that is to come.
        self._environment = {name: value for name, value in variables.items() if not name.startswith(PREFIX)}
        self._base = home / "base.jsa"

    def run(self) -> None:
        command = [
            str(self._java.executable),
            "-XX:+UseSerialGC",
            "-Xshare:dump",
            f"-XX:SharedArchiveFile={self._base}",
        ]
        subprocess.run(command, env=self._environment, check=True, capture_output=True, timeout=_READY_SECONDS)
        node = kafka.Broker(self._home / "kafka", free_port(), free_port())
        jars = kafka_jars(self._tools)
        node.prepare(self._java, jars)
        made = {name: self._home / f"{name}.jsa" for name in (_BROKER, _STREAM)}
        command = node.command(self._java, jars, self._record(made[_BROKER]))
        broker = processes.start(self._home, "kafka", command, self._environment)
        try:
            kafka.wait_ready(node.bootstrap, lambda: processes.alive(broker), _READY_SECONDS)
            kafka.create_topics(node.bootstrap, TOPICS)
            _send_ticks(node.bootstrap)
            self._stream(node.bootstrap, made[_STREAM])
        finally:
            # Its archive is written as it ends.
            processes.stop(broker, _READY_SECONDS)
        for name, unfinished in ({_BASE: self._base} | made).items():
            unfinished.replace(_archive(self._tools, self._java, name))

    def _record(self, archive: Path) -> list[str]:
        return [f"-XX:SharedArchiveFile={self._base}", f"-XX:ArchiveClassesAtExit={archive}", _QUIET]

    def _stream(self, bootstrap: str, archive: Path) -> None:
        settings = {
            "HOME": str(self._home),
            "KAFKA_BOOTSTRAP": bootstrap,
            "JARS": str(spark_jars(self._tools)),
            "TRIGGER": "available_now",
            "DRIVER_JAVA_OPTIONS": as_spark_reads(self._record(archive)),
        }
        variables = {
            **self._environment,
            **{f"{PREFIX}{name}": value for name, value in settings.items()},
            "JAVA_HOME": str(self._java.path),
            "PYTHONPATH": str(PROJECT_ROOT),
        }
        process = processes.start(self._home, "moving", [sys.executable, "-m", "spark_jobs", "moving"], variables)
        deadline = time.monotonic() + _JOB_SECONDS
        # The JVM goes on writing when the job itself has ended.
        while (processes.alive(process) or _has_members(process.pid)) and time.monotonic() < deadline:
            time.sleep(0.1)
        processes.stop(process, 0)
        if processes.exit_code(process) != 0:
            raise OSError(f"the stream ended {processes.how_it_ended(process)}")


def _has_members(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def _send_ticks(bootstrap: str) -> None:
    producer = Producer({"bootstrap.servers": bootstrap})
    for second in range(60):
        value = {"symbol": "REHEARSAL", "price": 1 + second % 7, "timestamp": f"2025-01-01T00:00:{second:02}Z"}
        producer.produce(TICKS_TOPIC, json.dumps(value), "REHEARSAL")
    producer.flush(_READY_SECONDS)
