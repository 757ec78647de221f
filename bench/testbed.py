"""Where contestants meet: one broker of the comparison's own, its topics, and the processes that run on it."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from confluent_kafka import IsolationLevel, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]

from bench.ticks import Payload, Walk, payloads
from orchestration.local import appcds, processes
from orchestration.local import broker as kafka
from orchestration.local.artifacts import kafka_jars
from orchestration.local.java import Java
from orchestration.local.ports import free_port
from tickhouse.contract.names import TICKS_TOPIC
from tickhouse.contract.topology import TOPICS

RESULT_TOPICS = tuple(topic for topic in TOPICS if topic != TICKS_TOPIC)
FAILURES = (RuntimeError, OSError, KafkaException, subprocess.SubprocessError)
"""What a contestant's start or the broker may raise: told as the contestant's failure, and the comparison goes on."""
_READY_SECONDS = 120.0
_REQUEST_SECONDS = 20.0
_STOP_SECONDS = 15.0
_KEYS_OWN = -1
"""Leaves a message's partition to its key."""


class Ground:
    """A broker in a folder of its own, which goes with it. A context manager."""

    def __init__(self, folder: Path, tools: Path, java: Java) -> None:
        self.folder = folder
        self.tools = tools
        self.java = java
        self._node = kafka.Broker(folder / "kafka", free_port(), free_port())
        self.bootstrap = self._node.bootstrap
        self._runs = 0

    def __enter__(self) -> Ground:
        self.folder.mkdir(parents=True)
        jars = kafka_jars(self.tools)
        self._node.prepare(self.java, jars)
        command = self._node.command(self.java, jars, appcds.broker_options(self.tools, self.java))
        self.broker = processes.start(self.folder, "kafka", command, os.environ)
        try:
            kafka.wait_ready(self.bootstrap, lambda: processes.alive(self.broker), _READY_SECONDS)
            kafka.create_topics(self.bootstrap, TOPICS)
        except BaseException:
            self.__exit__()
            raise
        self._admin = self._new_admin()
        return self

    def __exit__(self, *_: object) -> None:
        processes.stop(self.broker, _STOP_SECONDS)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _new_admin(self) -> AdminClient:
        return AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})

    # --- topics -------------------------------------------------------------------------------------------------------

    def send(self, messages: Iterable[tuple[int | None, bytes, bytes]]) -> int:
        """Send messages (partition or None for the key's own, key, value) to the price topic; returns how many."""
        producer = self.producer({"linger.ms": 50, "compression.type": "lz4", "queue.buffering.max.messages": 500_000})
        sent = 0
        for partition, key, value in messages:
            while True:
                try:
                    producer.produce(TICKS_TOPIC, value, key, partition=_KEYS_OWN if partition is None else partition)
                    break
                except BufferError:
                    producer.poll(0.1)
            sent += 1
        if producer.flush(_READY_SECONDS):
            raise RuntimeError("the broker does not take the ticks")
        return sent

    def send_walk(self, walk: Walk) -> int:
        """Send a walk, its symbols shared out evenly over the partitions."""
        return self.send((partition_of(payload), payload.key, payload.value) for payload in payloads(walk))

    def producer(self, settings: Mapping[str, str | int] | None = None) -> Producer:
        """A producer of the comparison's own."""
        return Producer(
            {
                "bootstrap.servers": self.bootstrap,
                "partitioner": "murmur2_random",
                "acks": "all",
                "log_level": 0,
                **(settings or {}),
            }
        )

    def renew(self, topics: Sequence[str] = RESULT_TOPICS) -> None:
        """Empty topics, by deleting them and creating them again."""
        for future in self._admin.delete_topics(list(topics), operation_timeout=_REQUEST_SECONDS).values():
            future.result(_REQUEST_SECONDS)
        deadline = time.monotonic() + _REQUEST_SECONDS
        while set(topics) & set(self._admin.list_topics(timeout=_REQUEST_SECONDS).topics):
            if time.monotonic() > deadline:
                raise RuntimeError("the broker does not delete its topics")
            time.sleep(0.1)
        kafka.create_topics(self.bootstrap, TOPICS)
        # A client that has known the old topics takes time to forget them.
        self._admin = self._new_admin()

    def readable(self, topics: Sequence[str]) -> dict[str, int]:
        """How many messages a `read_committed` consumer can read of each topic by now, the ends of transactions among
        them: one for each transaction and partition, which are few beside the results."""
        deadline = time.monotonic() + _REQUEST_SECONDS
        while True:
            try:
                return self._readable(topics)
            except KafkaException as error:
                # A topic that has just been created again is not known everywhere at once.
                if error.args[0].code() not in kafka.NOT_LED_YET or time.monotonic() > deadline:
                    raise
            time.sleep(0.1)

    def _readable(self, topics: Sequence[str]) -> dict[str, int]:
        wanted = {
            TopicPartition(topic, partition): OffsetSpec.latest()  # type: ignore[no-untyped-call]
            for topic in topics
            for partition in range(kafka.PARTITIONS)
        }
        futures = self._admin.list_offsets(
            wanted, isolation_level=IsolationLevel.READ_COMMITTED, request_timeout=_REQUEST_SECONDS
        )
        ends = dict.fromkeys(topics, 0)
        for place, future in futures.items():
            ends[place.topic] += future.result(_REQUEST_SECONDS).offset
        return ends

    # --- processes ----------------------------------------------------------------------------------------------------

    def new_home(self, name: str) -> Path:
        """A folder for one run of a contestant, deleted with the ground."""
        self._runs += 1
        home = self.folder / f"{name}-{self._runs}"
        home.mkdir()
        return home

    def run(self, home: Path, name: str, command: Sequence[str], environment: Mapping[str, str]) -> processes.Process:
        """Start a peer's process in a session of its own; what it prints goes to `<home>/logs/<name>.log`."""
        told = {
            "PEER_BOOTSTRAP": self.bootstrap,
            "PEER_STATE": str(home / "state"),
            "PEER_GROUP": home.name,
            "JAVA_HOME": str(self.java.path),
        }
        return processes.start(home, name, command, {**os.environ, **told, **environment})


def partition_of(payload: Payload) -> int:
    """The partition of a walk's message."""
    return payload.symbol % kafka.PARTITIONS


def stop_all(home: Path) -> None:
    """Stop all processes that were started in a home, and their children, also when not all could be started."""
    for name in processes.recorded_names(home):
        process = processes.recorded(home, name)
        if process is not None:
            processes.stop(process, _STOP_SECONDS)


def last_words(running: Iterable[processes.Process], lines: int = 3) -> str:
    """The last lines that processes have printed, on one line: why they ended, if they did."""
    told = []
    for process in running:
        printed = Path(process.log).read_text(errors="replace").splitlines() if Path(process.log).exists() else []
        told += [line.strip() for line in printed[-lines:] if line.strip()]
    return " / ".join(told)[-600:]
