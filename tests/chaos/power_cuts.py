"""Power cuts of one part of the stack at a time: `python -m tests.chaos.power_cuts --seeds 3 [--break durable]`.

Each part works in a folder that a power cut strikes at a random moment, is killed, and is started on what is left.
What it had acknowledged must be there, once. Exit code 0 when it is, each time.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import NamedTuple, get_args

import pymongo
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from deltalake import DeltaTable

from orchestration.local import broker as kafka
from orchestration.local import mongod as mongo
from orchestration.local.artifacts import kafka_jars, mongod_binary
from orchestration.local.java import find_java
from orchestration.local.ports import free_port
from orchestration.settings import PROJECT_ROOT
from spark_jobs.sinks.delta import TableTarget, create_table, position
from tests.chaos.power import PowerFolder, unavailable
from tests.chaos.volatile_disk import Mode

_START_SECONDS = 60.0
_READ_SECONDS = 30.0
_NOT_YET = (KafkaError.NOT_COORDINATOR, KafkaError.COORDINATOR_LOAD_IN_PROGRESS, KafkaError.COORDINATOR_NOT_AVAILABLE)
_TABLE = "higher"
_ROWS = 10
_TOPIC, _TOPIC_ID = "power", "id"


class Trial(NamedTuple):
    """What a part is given."""

    power: PowerFolder
    durable: bool
    random: Random
    seconds: float
    tools: Path

    def moments(self) -> Iterator[None]:
        """Again and again, until it is time for the cut."""
        end = time.monotonic() + self.seconds * (1 + self.random.random())
        while time.monotonic() < end:
            yield


def delta(trial: Trial) -> str | None:
    """Commits of a stream to a table; returns what is wrong afterwards."""
    target = TableTarget(_TABLE, str(trial.power.folder / "lakehouse" / _TABLE), trial.power.folder, trial.durable)
    with _process("delta", str(trial.power.folder), str(trial.durable)) as writer:
        acknowledged = -1
        for _ in trial.moments():
            acknowledged = int(_line(writer))
        time.sleep(trial.random.random() / 10)
        trial.power.cut()
    trial.power.switch_off()
    trial.power.switch_on()
    create_table(target)
    there = position(target.uri, _TOPIC, _TOPIC_ID, (0,)).get(0, 0)
    if there < _ROWS * (acknowledged + 1):
        return f"{acknowledged + 1} commits were acknowledged, the table has {there // _ROWS}"
    rows = DeltaTable(target.uri).to_pyarrow_table().num_rows
    return None if rows == there else f"{rows} rows instead of {there}"


def checkpoint(trial: Trial) -> str | None:
    """Files of a checkpoint as Spark leaves them, and what is written on their word."""
    with _process("checkpoint", str(trial.power.folder), str(trial.durable)) as writer:
        acknowledged = -1
        for _ in trial.moments():
            acknowledged = int(_line(writer))
        trial.power.cut()
    trial.power.switch_off()
    trial.power.switch_on()
    folder = trial.power.folder / "checkpoints" / "moving"
    for batch in range(acknowledged + 1):
        for name in (f"offsets/{batch}", f"state/0/0/{batch + 1}.changelog"):
            content = (folder / name).read_text() if (folder / name).exists() else None
            if content != f"{name} {batch}":
                return (
                    f"micro-batch {acknowledged} was published, and {name} is {'gone' if content is None else 'torn'}"
                )
    return None


def broker(trial: Trial) -> str | None:
    """Transactions with their marker."""
    java, jars = find_java(os.environ), kafka_jars(trial.tools)
    node = kafka.Broker(trial.power.folder / "kafka", free_port(), free_port(), trial.durable)

    @contextlib.contextmanager
    def running() -> Iterator[None]:
        node.prepare(java, jars)
        with _killed(node.command(java, jars)) as process:
            kafka.wait_ready(node.bootstrap, lambda: process.poll() is None, _START_SECONDS)
            yield

    client = {"bootstrap.servers": node.bootstrap, "log_level": "0"}
    reading = {**client, "group.id": "marker", "enable.auto.commit": "false", "isolation.level": "read_committed"}
    acknowledged = 0
    with running():
        node.make_topics(["results"])
        producer = Producer({**client, "transactional.id": "power"})
        producer.init_transactions(_START_SECONDS)
        group = Consumer(reading)
        for _ in trial.moments():
            producer.begin_transaction()
            for partition in range(kafka.PARTITIONS):
                producer.produce("results", key=f"{acknowledged} {partition}", value=b"", partition=partition)
            marker = TopicPartition("results", 0, acknowledged + 1, json.dumps({"batch": acknowledged}))
            producer.send_offsets_to_transaction([marker], group.consumer_group_metadata(), _READ_SECONDS)
            producer.commit_transaction(_READ_SECONDS)
            acknowledged += 1
        group.close()
        trial.power.cut()
    trial.power.switch_off()
    trial.power.switch_on()
    with running():
        group = Consumer({**reading, "enable.partition.eof": "true", "auto.offset.reset": "earliest"})
        found = _committed(group)
        keys = _keys(group)
        group.close()
    if found.offset < acknowledged:
        return f"{acknowledged} transactions were acknowledged, the marker is at {found.offset}"
    expected = [f"{number} {partition}" for number in range(found.offset) for partition in range(kafka.PARTITIONS)]
    return None if sorted(keys) == sorted(expected) else f"{len(keys)} messages instead of {len(expected)}"


def database(trial: Trial) -> str | None:
    """Documents written as the load does; without the journal when the protection is off."""
    server = mongo.Mongod(trial.power.folder / "mongo", free_port())
    concern = pymongo.WriteConcern(w="majority", j=True) if trial.durable else pymongo.WriteConcern(w=1, j=False)

    @contextlib.contextmanager
    def running() -> Iterator[pymongo.collection.Collection[dict[str, int]]]:
        with _killed(server.command(mongod_binary(trial.tools, os.environ))) as process:
            mongo.wait_ready(server.uri, lambda: process.poll() is None, _START_SECONDS)
            with pymongo.MongoClient[dict[str, int]](server.uri) as client:
                yield client["power"].get_collection("documents", write_concern=concern)

    acknowledged = 0
    with running() as documents:
        for _ in trial.moments():
            documents.insert_many([{"_id": acknowledged + place} for place in range(100)], ordered=False)
            acknowledged += 100
        trial.power.cut()
    trial.power.switch_off()
    trial.power.switch_on()
    with running() as documents:
        there = documents.count_documents({})
    return None if there >= acknowledged else f"{acknowledged} documents were acknowledged, {there} are there"


PARTS: dict[str, Callable[[Trial], str | None]] = {
    "delta": delta,
    "checkpoint": checkpoint,
    "broker": broker,
    "database": database,
}


def outcome(part: str, folder: Path, mode: Mode, seed: int, tools: Path, durable: bool, seconds: float = 2.0) -> str:
    """One trial in words: `exact`, or what was wrong."""
    with PowerFolder(folder / "power", mode, seed) as power:
        try:
            found = PARTS[part](Trial(power, durable, Random(f"{part} {mode} {seed}"), seconds, tools))
        except Exception as error:
            return f"refused: {type(error).__name__}: {str(error).splitlines()[0][:160]}"
    return found or "exact"


def _committed(group: Consumer) -> TopicPartition:
    """The marker, as soon as the broker has found out that it is the one to ask."""
    deadline = time.monotonic() + _READ_SECONDS
    while True:
        try:
            (found,) = group.committed([TopicPartition("results", 0)], timeout=_READ_SECONDS)
            return found
        except KafkaException as error:
            if error.args[0].code() not in _NOT_YET or time.monotonic() > deadline:
                raise
        time.sleep(0.1)


def _keys(consumer: Consumer) -> list[str]:
    consumer.assign([TopicPartition("results", number, 0) for number in range(kafka.PARTITIONS)])
    keys: list[str] = []
    ended = 0
    while ended < kafka.PARTITIONS:
        message = consumer.poll(_READ_SECONDS)
        if message is None:
            raise TimeoutError("the results cannot be read to their end")
        error = message.error()
        if error is None:
            keys.append((message.key() or b"").decode())
        elif error.code() == KafkaError._PARTITION_EOF:
            ended += 1
        else:
            raise RuntimeError(str(error))
    return keys


@contextlib.contextmanager
def _killed(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(command, cwd=PROJECT_ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def _process(part: str, *arguments: str) -> contextlib.AbstractContextManager[subprocess.Popen[str]]:
    return _killed([sys.executable, "-m", "tests.chaos.power_writers", part, *arguments])


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def main() -> int:
    """All parts in all modes; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.power_cuts", description=__doc__)
    parser.add_argument("--parts", default=",".join(PARTS), help="only these, comma-separated")
    parser.add_argument("--seeds", type=int, default=3, help="trials of each part in each mode (default 3)")
    parser.add_argument("--tools", type=Path, default=PROJECT_ROOT / ".tools")
    parser.add_argument("--break", dest="broken", choices=("durable",), help="take a safeguard away: must be found out")
    options = parser.parse_args()
    if reason := unavailable():
        print(reason)
        return 2
    wrong = 0
    for part in options.parts.split(","):
        for mode in get_args(Mode):
            for seed in range(options.seeds):
                with tempfile.TemporaryDirectory(prefix="tickhouse-power-") as folder:
                    found = outcome(part, Path(folder), mode, seed, options.tools, options.broken is None)
                wrong += found != "exact"
                print(f"{part:<12}{mode:<8}{seed:>4}  {found}", flush=True)
    print(f"{wrong} trials were not exact")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
