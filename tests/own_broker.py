"""A Kafka broker of a test's own, which it may stop, kill and start again. The session's broker is in `conftest`."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from orchestration.local import broker as kafka
from orchestration.local import processes
from orchestration.local.artifacts import kafka_jars
from orchestration.local.java import Java
from orchestration.local.ports import free_port


class OwnBroker:
    """Recorded in the home as the process `kafka`; not running until started."""

    def __init__(self, home: Path, java: Java, tools: Path, advertised: int | None = None) -> None:
        """`advertised`: the port that it names to its clients, of a proxy."""
        self._home = home
        jars = kafka_jars(tools)
        node = kafka.Broker(home / "kafka", free_port(), free_port())
        node.prepare(java, jars)
        self.port = node.port
        if advertised is not None:
            properties = home / "kafka" / "server.properties"
            own = f"advertised.listeners=PLAINTEXT://127.0.0.1:{node.port}"
            properties.write_text(properties.read_text().replace(own, own.replace(str(node.port), str(advertised))))
        self._command = node.command(java, jars)
        self.bootstrap = node.bootstrap

    @property
    def running(self) -> bool:
        """Whether it has been started and has not ended since."""
        process = processes.recorded(self._home, "kafka")
        return process is not None and processes.alive(process)

    def start(self) -> None:
        """Start it and wait until it is ready."""
        process = processes.start(self._home, "kafka", self._command, os.environ)
        kafka.wait_ready(self.bootstrap, lambda: processes.alive(process), 60)

    def stop(self, grace_seconds: float = 20) -> None:
        """Stop it, if it is running, and wait until it has ended; killed when it takes longer than the grace."""
        process = processes.recorded(self._home, "kafka")
        if process is not None:
            processes.stop(process, grace_seconds)

    def kill(self) -> None:
        """Kill it, without a chance to put anything in order."""
        process = processes.recorded(self._home, "kafka")
        assert process is not None
        os.kill(process.pid, signal.SIGKILL)
        processes.stop(process, 0)
