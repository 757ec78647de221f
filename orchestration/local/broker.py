"""A Kafka broker of one node on this machine, for the local stack and the tests."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]
from confluent_kafka.cimpl import NewTopic

from orchestration.local import exit_status
from orchestration.local.java import Java
from tickhouse.environment import helper_environment
from tickhouse.files import ForcedFolder

PARTITIONS = 4
"""Partitions of each topic."""
NOT_LED_YET = (
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError.LEADER_NOT_AVAILABLE,
    # A broker that has just started knows an older epoch of its partitions than the controller has told the client.
    KafkaError.FENCED_LEADER_EPOCH,
    KafkaError.UNKNOWN_LEADER_EPOCH,
    KafkaError._UNKNOWN_PARTITION,
    KafkaError._UNKNOWN_TOPIC,
)
"""What a broker, or the client for it, answers about partitions that it does not lead yet: ask again."""
_KNOWN_SECONDS = 30.0
_CLUSTER_ID = "dGlja2hvdXNlLWxvY2FsMQ"
_TEN_YEARS_MINUTES = 10 * 365 * 24 * 60
_CONFIGURATION = """# Written at each start; changes are lost.
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller_port}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs={data}
auto.create.topics.enable=false
# One node keeps one copy of everything.
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
offsets.topic.num.partitions=8
transaction.state.log.num.partitions=8
group.initial.rebalance.delay.ms=0
# After a kill the broker is let in again only when its earlier self has timed out; the default is 9 s.
broker.session.timeout.ms=4000
broker.heartbeat.interval.ms=1000
# Committed offsets and transactional ids are what makes publishing exactly once. They must outlive any pause.
offsets.retention.minutes={retention_minutes}
transactional.id.expiration.ms=2147483647
producer.id.expiration.ms=2147483647
# One record from the far future would make all ticks late that follow it.
log.message.timestamp.after.max.ms=3600000
# A stream that is down for longer than this would lose its input, and says so when it starts.
log.retention.hours=168
log.segment.bytes=268435456
# A log is then found consistent after a crash by reading little of it.
log.flush.offset.checkpoint.interval.ms=10000
# The default of 128 MB is more than a small heap can spare.
log.cleaner.dedupe.buffer.size=16777216
num.network.threads=2
num.io.threads=4
"""
_FIRST_CLIENT = "tickhouse-first"
_DURABLE = "log.flush.interval.messages=1\n"
_LOGGING = """status = error
rootLogger.level = warn
rootLogger.appenderRef.console.ref = console
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{yyyy-MM-dd HH:mm:ss,SSS} %p %c{1}: %m%n
"""


def java_property(value: str) -> str:
    """A value as `java.util.Properties` reads it: in ASCII, and without what would end or change it."""
    return "".join(one if (one.isascii() and one.isalnum()) or one in "/._-" else _escape(one) for one in value)


def _escape(character: str) -> str:
    units = character.encode("utf-16-be")
    return "".join(f"\\u{units[n]:02x}{units[n + 1]:02x}" for n in range(0, len(units), 2))


class TopicMismatch(Exception):
    """A topic exists with another number of partitions than it must have; the message says what to do."""


class NotReady(Exception):
    """A server did not answer in time, or ended; the message says where to look."""


@dataclass(frozen=True)
class Broker:
    """A broker that keeps its files in `directory` and listens on two ports of 127.0.0.1."""

    directory: Path
    port: int
    controller_port: int
    durable: bool = False
    """Whether each message is on disk before it is acknowledged: a single broker has no other to get it back from."""

    @property
    def bootstrap(self) -> str:
        """Its address for clients."""
        return f"127.0.0.1:{self.port}"

    def prepare(self, java: Java, kafka_jars: Path) -> None:
        """Write its configuration, and format its storage the first time. Raises NotReady."""
        if "," in str(self.directory):  # no quoting helps: it would make its storage in other folders
            raise NotReady(f"the path {self.directory} has a comma in it, and Kafka takes it for the end of a path")
        self.directory.mkdir(parents=True, exist_ok=True)
        self._logging.write_text(_LOGGING)
        data = self.directory / "data"
        if not data.exists():
            # Formatted beside its place and renamed: an interrupted format leaves nothing that looks complete.
            unfinished = self.directory / "data.unfinished"
            shutil.rmtree(unfinished, ignore_errors=True)
            self.write_properties(unfinished)
            command = [*self._java(java, kafka_jars), "kafka.tools.StorageTool", "format"]
            command += ["--cluster-id", _CLUSTER_ID, "--config", str(self._properties)]
            result = subprocess.run(command, env=helper_environment(), capture_output=True, text=True)
            if result.returncode != 0:
                last = (result.stderr or result.stdout).strip().splitlines()[-1:]
                ended = exit_status.told("java", result.returncode)
                raise NotReady(f"the broker's storage {data} cannot be formatted; Java ended {ended}. {' '.join(last)}")
            unfinished.rename(data)
        self.write_properties(data)
        if self.durable:
            ForcedFolder(self.directory).force()

    def make_topics(self, names: Sequence[str]) -> None:
        """Create the topics of the running broker that are not there yet; with `durable`, force their names to disk.

        With `log.flush.interval.messages` Kafka forces what it writes into a file, and the file's name, but not the
        names of its topics' folders. Raises TopicMismatch, KafkaException, NotReady.
        """
        create_topics(self.bootstrap, names)
        if not self.durable:
            return
        # The coordinators make their topics when they are asked for the first time.
        client = {"bootstrap.servers": self.bootstrap, "log_level": 0}
        group = Consumer({**client, "group.id": _FIRST_CLIENT}).consumer_group_metadata()
        producer = Producer({**client, "transactional.id": _FIRST_CLIENT})
        producer.init_transactions(_KNOWN_SECONDS)
        producer.begin_transaction()
        producer.send_offsets_to_transaction([TopicPartition(names[0], 0, 0)], group, _KNOWN_SECONDS)
        producer.abort_transaction(_KNOWN_SECONDS)
        ForcedFolder(self.directory).force()

    def command(self, java: Java, kafka_jars: Path, java_options: Sequence[str] = ()) -> list[str]:
        """The command that runs it in the foreground; SIGTERM stops it cleanly. `java_options`: further ones."""
        return [*self._java(java, kafka_jars, java_options), "kafka.Kafka", str(self._properties)]

    def write_properties(self, data: Path) -> None:
        """Write the configuration of a broker with its storage in `data`."""
        configuration = _CONFIGURATION.format(
            port=self.port,
            controller_port=self.controller_port,
            data=java_property(str(data)),
            retention_minutes=_TEN_YEARS_MINUTES,
        )
        self._properties.write_text(configuration + (_DURABLE if self.durable else ""), encoding="ascii")

    @property
    def _properties(self) -> Path:
        return self.directory / "server.properties"

    @property
    def _logging(self) -> Path:
        return self.directory / "log4j2.properties"

    def _java(self, java: Java, kafka_jars: Path, further_options: Sequence[str] = ()) -> list[str]:
        # The first compiler alone: measured, the broker is then up in 1.6 s instead of 2.7, takes 200 MB instead of
        # 350, and does the work of a stack of this size with less of the processor, not more.
        options = ["-Xms128m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:+ExitOnOutOfMemoryError"]
        return [
            str(java.executable),
            *options,
            *further_options,
            f"-Dlog4j2.configurationFile={self._logging}",
            f"-Djava.io.tmpdir={self.directory}",
            "-cp",
            f"{kafka_jars}/*",
        ]


def wait_ready(bootstrap: str, alive: Callable[[], bool], timeout_seconds: float) -> None:
    """Wait until the broker answers. Raises NotReady when it has ended or does not answer in time."""
    deadline = time.monotonic() + timeout_seconds
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    while True:
        try:
            admin.list_topics(timeout=1)
            return
        except KafkaException as error:
            if not alive():
                raise NotReady("the Kafka broker has ended: its log says why") from error
            if time.monotonic() > deadline:
                raise NotReady(
                    f"the Kafka broker did not answer on {bootstrap} within {timeout_seconds:.0f} s: see its log"
                ) from error
            time.sleep(0.1)


def create_topics(
    bootstrap: str, names: Sequence[str], partitions: int = PARTITIONS, security: Mapping[str, str] | None = None
) -> None:
    """Create the topics that are not there yet; returns once the broker knows them all.

    `security`: further settings of librdkafka, for a broker that is not the local one. Raises TopicMismatch,
    KafkaException, NotReady.
    """
    # What fails is raised; what the client would print besides, long after the topics are made, frightens people.
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0, **(security or {})})
    existing = admin.list_topics(timeout=10).topics
    for name in names:
        if name in existing and len(existing[name].partitions) != partitions:
            raise TopicMismatch(
                f"topic {name} has {len(existing[name].partitions)} partitions instead of {partitions}, which "
                "would scatter what must stay in order: use another home, or delete the topic if it is not needed"
            )
    missing = [NewTopic(name, partitions, 1) for name in names if name not in existing]
    for future in (admin.create_topics(missing) if missing else {}).values():
        try:
            future.result(timeout=30)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise
    # The controller has them now; the broker hears of them a moment later, and then begins to lead their partitions.
    deadline = time.monotonic() + _KNOWN_SECONDS
    while unready := [name for name in names if not _is_led(admin, name)]:
        if time.monotonic() > deadline:
            raise NotReady(f"the broker does not serve {', '.join(unready)} after {_KNOWN_SECONDS:.0f} s")
        time.sleep(0.05)


def _is_led(admin: AdminClient, topic: str) -> bool:
    """Whether every partition of a topic answers."""
    known = admin.list_topics(timeout=10).topics
    partitions = [TopicPartition(topic, partition) for partition in (known[topic].partitions if topic in known else ())]
    latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
    offsets = admin.list_offsets(dict.fromkeys(partitions, latest)) if partitions else {}
    try:
        for offset in offsets.values():
            offset.result(timeout=10)
    except KafkaException as error:
        if error.args[0].code() not in NOT_LED_YET:
            raise
        return False
    return bool(partitions)
