"""One stream, from its input to its output topics, that may die or be set back at every step.

Neither Spark nor a broker runs. Operators, checkpoint, markers and publishing are the stream's own. In memory are what
Spark does with them (planning micro-batches, keeping state, recording what is done), the checkpoint's disk, and the
brokers (`memory_kafka`).
"""

from __future__ import annotations

import json
import pickle
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial
from random import Random
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
import pyarrow as pa
from confluent_kafka import KafkaException, TopicPartition
from pyspark.sql import Row

from spark_jobs.checkpoints.checkpoint import NOT_BEGUN, Checkpoint, Progress
from spark_jobs.jobs.moving import MovingProcessor
from spark_jobs.jobs.symbol_processor import SymbolProcessor
from spark_jobs.jobs.trend import TrendProcessor
from spark_jobs.sinks import kafka
from spark_jobs.sinks.existing_results import Existing, Survey, _timestamps, add
from tests.memory_kafka import Crash, Fault, MemoryConsumer, MemoryKafka, MemoryProducer
from tests.operators_without_spark import Message, State, operator, packed
from tickhouse.contract.topology import JOBS
from tickhouse.kafka.markers import MarkerMismatch, MicroBatch, adopted, limited, stops
from tickhouse.kafka.offsets import Offsets, named

PROCESSORS: dict[str, type[SymbolProcessor]] = {"moving": MovingProcessor, "trend": TrendProcessor}
LATENESS_MS = 10_000
_TOPIC = "btc-price"
_SYMBOLS = ("BTCUSDT", "ETHUSDT", "SHIBUSDT")
_PARTITIONS = 2
"""Of the input topic and of the state."""
_BUCKETS = 8
_CONF = '{"batchWatermarkMs":0,"batchTimestampMs":1,"conf":{}}'
_LIVES = 60
"""More than any schedule needs: a stream that does not come to an end is wrong."""


class Disaster(NamedTuple):
    """What happens to a stream that has died, before it is started again."""

    kind: str
    """`rollback` of the checkpoint by `amount` writes, `lose` a marker, `set back` a marker, `rebuild`."""
    amount: int


def input_messages(seed: int, ticks: int) -> list[list[Message]]:
    """Ticks of a few symbols, some out of order, late or repeated, by partition; a symbol keeps to one."""
    random = Random(seed)
    partitions: list[list[Message]] = [[] for _ in range(_PARTITIONS)]
    clocks = dict.fromkeys(_SYMBOLS, 1_746_748_800_000)
    for _ in range(ticks):
        number = random.randrange(len(_SYMBOLS))
        symbol = _SYMBOLS[number]
        clocks[symbol] += random.randrange(1, 12_000)
        time = clocks[symbol] - random.choice((0, 0, 0, 3_000, 9_000, 15_000))
        stamp = f"{np.datetime64(time, 'ms')}Z"
        value = json.dumps({"symbol": symbol, "price": random.randrange(1, 9) / 4, "timestamp": stamp}).encode()
        partition = number % _PARTITIONS
        partitions[partition].append(
            Message(_TOPIC, partition, len(partitions[partition]), time, symbol.encode(), value)
        )
    return partitions


class Disk:
    """A checkpoint's files in memory, with all that it has been: `CheckpointFiles`."""

    place = "memory"

    def __init__(self) -> None:
        self._files: dict[str, bytes] = {}
        self._history: list[dict[str, bytes]] = [{}]

    def sizes(self, folder: str) -> dict[str, int]:
        """As `CheckpointFiles`."""
        names = [name for name in self._files if name.rpartition("/")[0] == folder]
        return {name.rpartition("/")[2]: len(self._files[name]) for name in names}

    def read(self, name: str) -> bytes | None:
        """As `CheckpointFiles`."""
        return self._files.get(name)

    def write(self, name: str, content: str) -> None:
        """As `CheckpointFiles`."""
        self.put(name, content.encode())

    def put(self, name: str, content: bytes) -> None:
        """Write or replace a file."""
        self._files = {**self._files, name: content}
        self._history.append(self._files)

    def is_copied(self, other_place: str, name: str) -> bool:
        """As `CheckpointFiles`: there is nothing else."""
        del other_place, name
        return False

    def roll_back(self, writes: int) -> None:
        """Forget the last writes, as a power cut does, or a copy that is put back."""
        self._history = self._history[: max(1, len(self._history) - writes)]
        self._files = self._history[-1]

    def clear(self) -> None:
        """A new disk, but for what the stream's old checkpoint is asked for later."""
        self._files = {}
        self._history = [{}]


class CrashingStream:
    """The stream `job` on a given input.

    `sizes`: how many messages of each partition a micro-batch takes, over and over; `fault`: what goes wrong at a step,
    by its name, None = nothing; `delay`: see `MemoryKafka`.
    """

    def __init__(
        self,
        job: str,
        messages: Sequence[Sequence[Message]],
        sizes: Sequence[int],
        fault: Callable[[str], Fault | None] = lambda _: None,
        delay: Callable[[], int] = lambda: 1,
    ) -> None:
        self._job = job
        self._messages = messages
        self._sizes = sizes
        self._fault = fault
        self._topics = JOBS[job].outputs
        self._disk = Disk()
        self._markers: list[dict[str, Any]] = []
        self.kafka = MemoryKafka(fault, delay)

    def published(self) -> dict[tuple[str, str], list[bytes]]:
        """What a `read_committed` consumer sees, by topic and symbol."""
        found: dict[tuple[str, str], list[bytes]] = {}
        for topic, messages in self.kafka.committed.items():
            for message in messages:
                found.setdefault((topic, message.key), []).append(message.value)
        return found

    def live(self) -> bool:
        """One life of its process; whether it has come to the end of its input. Raises MarkerMismatch."""
        with self._clients():
            try:
                self._work()
            except (Crash, KafkaException, kafka.NoAnswer):
                return False
        return True

    def suffer(self, disaster: Disaster) -> None:
        """A disaster between two lives."""
        groups = sorted(self.kafka.groups)
        if disaster.kind == "rollback":
            self._disk.roll_back(disaster.amount)
        elif disaster.kind == "rebuild":
            self._disk.clear()
        elif groups:
            group = groups[disaster.amount % len(groups)]
            if disaster.kind == "lose":
                del self.kafka.groups[group]
            elif earlier := self._earlier(group):
                self.kafka.groups[group] = earlier[disaster.amount % len(earlier)]

    def _earlier(self, group: str) -> list[TopicPartition]:
        """What a marker was, but for the last time before: a micro-batch that is not recorded as done begins there, and
        only the topic could tell that it was published."""
        found: list[TopicPartition] = []
        for markers in self._markers:
            if group in markers and markers[group] not in found:
                found.append(markers[group])
        return found[:-2]

    @contextmanager
    def _clients(self) -> Iterator[None]:
        with (
            patch.object(kafka, "Producer", lambda settings: MemoryProducer(self.kafka, settings)),
            patch.object(kafka, "Consumer", lambda settings: MemoryConsumer(self.kafka, settings)),
            patch.object(kafka, "time", SimpleNamespace(monotonic=self.kafka.monotonic)),
            # In a thread of its own, which waits for what may never come back, nobody would be there to die.
            patch.object(kafka, "_within", lambda _seconds, call: call()),
        ):
            yield

    def _work(self) -> None:
        checkpoint = Checkpoint(self._disk, self._job)
        checkpoint.claim({"query": self._job, "version": 1, "state_partitions": _PARTITIONS})
        progress = checkpoint.inspect() or NOT_BEGUN
        meeting = self._meet_markers(checkpoint, progress)
        existing = Survey.from_json(checkpoint.existing() or b"{}").existing
        target = kafka.KafkaTarget(self._topics, {}, existing)
        channels = [
            kafka._Channel(kafka._identity(checkpoint.query_id, partition), target) for partition in range(_PARTITIONS)
        ]
        number, position, planned = progress.batch + 1, progress.offsets, progress.planned
        while True:
            ends = planned or limited(position, self._next_ends(position, number), meeting)
            if ends == position:
                return
            if planned is None:
                self._record("plan", f"offsets/{number}", f"v1\n{_CONF}\n{json.dumps(named(ends))}")
            self._do(MicroBatch(number, position, ends), channels)
            self._record("done", f"commits/{number}", 'v1\n{"nextBatchWatermarkMs":0}')
            number, position, planned = number + 1, ends, None

    def _meet_markers(self, checkpoint: Checkpoint, progress: Progress) -> list[Offsets]:
        markers = kafka.Markers(checkpoint.query_id, kafka.KafkaTarget(self._topics, {}), _PARTITIONS)
        found = markers.read()
        if not checkpoint.marked:
            if progress == NOT_BEGUN:
                checkpoint.keep_existing(Survey(self._existing(), {}).to_json())
            known = any(marker is not None for marker in found)
            found = markers.write(lambda marker: adopted(marker, known, *progress))
            checkpoint.note_marked()
        return stops(found, *progress)

    def _existing(self) -> Existing:
        existing: Existing = {topic: {} for topic in self._topics}
        for topic, messages in self.kafka.committed.items():
            held = existing[topic]
            for symbol, timestamps in _timestamps(pa.array([message.value for message in messages], pa.binary())):
                held[symbol] = add(held.get(symbol), timestamps, LATENESS_MS)
        return existing

    def _next_ends(self, position: Offsets, number: int) -> Offsets:
        reached = position.get(_TOPIC, {})
        ends = {}
        for partition, messages in enumerate(self._messages):
            size = self._sizes[(number + partition) % len(self._sizes)]
            ends[partition] = min(len(messages), reached.get(partition, 0) + size)
        if ends == reached and any(ends[number] < len(some) for number, some in enumerate(self._messages)):
            ends = {number: min(len(some), ends[number] + 1) for number, some in enumerate(self._messages)}
        return {_TOPIC: ends}

    def _do(self, batch: MicroBatch, channels: Sequence[kafka._Channel]) -> None:
        first = batch.first.get(_TOPIC, {})
        messages = [
            message
            for partition, end in batch.ends[_TOPIC].items()
            for message in self._messages[partition][first.get(partition, 0) : end]
        ]
        results: dict[int, list[dict[str, Any]]] = {partition: [] for partition in range(_PARTITIONS)}
        states = [self._state(partition, batch.number) for partition in range(_PARTITIONS)]
        for row in _packed(tuple(messages)):
            partition = row.bucket % _PARTITIONS
            state = states[partition].setdefault(row.bucket, {})
            results[partition] += _results(PROCESSORS[self._job], state, row)
        for partition, channel in enumerate(channels):
            name = f"state/0/{partition}/{batch.number + 1}.changelog"
            self._step("state", partial(self._disk.put, name, pickle.dumps(states[partition])))
            channel.publish(batch, results[partition])
            self._markers.append(dict(self.kafka.groups))

    def _state(self, partition: int, version: int) -> dict[int, State]:
        content = self._disk.read(f"state/0/{partition}/{version}.changelog") if version else None
        state: dict[int, State] = pickle.loads(content) if content else {}
        return state

    def _record(self, step: str, name: str, content: str) -> None:
        self._step(step, lambda: self._disk.write(name, content))

    def _step(self, name: str, do: Callable[[], None]) -> None:
        fault = self._fault(name)
        if fault is Fault.CRASH_BEFORE:
            raise Crash
        do()
        if fault is Fault.CRASH_AFTER:
            raise Crash


@lru_cache(10_000)
def _packed(messages: tuple[Message, ...]) -> list[Row]:
    """What reading costs is not what is looked into here, and a micro-batch is repeated often."""
    return list(packed(messages, _BUCKETS)) if messages else []


def _results(processor: type[SymbolProcessor], state: State, row: Row) -> list[dict[str, Any]]:
    made = operator(processor, LATENESS_MS, state)
    return [result.asDict() for result in made.handleInputRows((row.bucket,), iter([row]), None)]


def run(
    stream: CrashingStream, disasters: Sequence[Disaster], expected: dict[tuple[str, str], list[bytes]]
) -> Counter[str]:
    """Let a stream live until it comes to its end, and judge what it has published; returns what happened how often.

    Raises AssertionError when results are repeated, missing or wrong, or when the stream stops without a reason.
    """
    happened: Counter[str] = Counter()
    waiting = list(disasters)
    marker_harmed = False
    for _ in range(_LIVES):
        try:
            done = stream.live()
        except MarkerMismatch:
            assert marker_harmed, "a stream stopped whose markers are all right"
            happened["refused"] += 1
            stream.suffer(Disaster("rebuild", 0))
            marker_harmed = done = False
        published = stream.published()
        for place, values in published.items():
            assert len(set(values)) == len(values), f"{place}: repeated"
            assert set(values) <= set(expected[place]), f"{place}: wrong"
        if done and not waiting:
            # How the input was cut decides the order of results that become final together.
            assert {place: sorted(values) for place, values in published.items()} == {
                place: sorted(values) for place, values in expected.items()
            }
            return happened
        happened["lives"] += 1
        if waiting:
            disaster = waiting.pop(0)
            stream.suffer(disaster)
            happened[disaster.kind] += 1
            marker_harmed = marker_harmed or disaster.kind in ("lose", "set back")
    raise AssertionError("the stream does not come to an end")
