"""How far earlier runs of the same replay got, and what else lies on the topic, read from the topic itself.

Every replayed record carries a header with the id of what was replayed and the number of its line. An id names lines by
their content: the first n lines with this digest. So a recording that has grown, or was compressed in another way, is
known again by the lines that it begins with, and one that was changed is another.

The partition of a line depends on nothing but the line, and one partition holds its lines in order without gaps (an
idempotent producer that stops at the first failed delivery), so the last record of a replay in each partition says it
all.
"""

from __future__ import annotations

import hashlib
import logging
import re
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from producer.recordings.errors import ResumeError
from producer.recordings.tally import Tally
from tickhouse.contract.arrays import Integers
from tickhouse.contract.batch_validation import accept_batch

HEADER = "tickhouse-replay"

_AT_ONCE = 5_000
_PREFETCH_KILOBYTES = 16_384
_STALLED_SECONDS = 60.0
_SETTLE_SECONDS = 1.0
_TELL_SECONDS = 5.0
# Before a recording could grow, an id had no number of lines: its digest was that of all.
_FORM = re.compile(r"([0-9a-f]+)(?:-([0-9]+))?-([a-z]+):([0-9]+):([0-9]+):(-?[0-9]+)")

_log = logging.getLogger(__name__)


class ReplayId(NamedTuple):
    """What was replayed: the first `lines` lines, of this `digest`, with timestamps as `mode` says."""

    digest: str
    lines: int | None
    mode: str

    def __str__(self) -> str:
        return f"{self.digest}-{self.lines}-{self.mode}"


class Position(NamedTuple):
    """What the header of a replayed record says; `line` counts from 1, `shift` is in microseconds."""

    replay: ReplayId
    partitions: int
    line: int
    shift: int

    def header(self) -> bytes:
        return f"{self.replay}:{self.partitions}:{self.line}:{self.shift}".encode()


def parse_header(value: bytes) -> Position | None:
    """Read a header back, None for one of another form."""
    match = _FORM.fullmatch(value.decode("utf-8", "replace"))
    if match is None:
        return None
    digest, lines, mode, partitions, line, shift = match.groups()
    replay = ReplayId(digest, None if lines is None else int(lines), mode)
    return Position(replay, int(partitions), int(line), int(shift))


class Digest:
    """Identifies the first lines of a recording, whatever the file was compressed with."""

    def __init__(self, wanted: Iterable[int] = ()) -> None:
        """`wanted`: after how many lines the digest is to be kept on the way."""
        self._hash = hashlib.sha256()
        self._wanted = sorted(set(wanted), reverse=True)
        self.kept: dict[int, str] = {}
        self.lines = 0

    def add(self, lines: list[bytes]) -> None:
        """Some further lines."""
        while self._wanted and self._wanted[-1] <= self.lines + len(lines):
            wanted = self._wanted.pop()
            part, lines = lines[: wanted - self.lines], lines[wanted - self.lines :]
            self._add(part)
            self.kept[wanted] = self.text()
        self._add(lines)

    def _add(self, lines: list[bytes]) -> None:
        if lines:
            self._hash.update(b"\n".join(lines) + b"\n")
            self.lines += len(lines)

    def text(self) -> str:
        return self._hash.hexdigest()[:32]


class Reached(NamedTuple):
    """The last line in each partition, 0 where there is none, and the shift of the earlier run, None without one."""

    lines: dict[int, int]
    shift: int | None


class OnTopic(NamedTuple):
    """What lies on the topic."""

    replays: dict[ReplayId, dict[int, Position]]
    """Of each replay the last position in each partition."""
    recent: Mapping[str, Integers]
    """Of each symbol the distinct timestamps within the lateness of its largest."""

    def reached(self, partitions: int, is_ours: Callable[[ReplayId], bool]) -> Reached:
        """How far a recording got under all ids that are its own. Raises ResumeError."""
        positions = [
            (partition, position)
            for replay, found in self.replays.items()
            if is_ours(replay)
            for partition, position in found.items()
        ]
        for _, position in positions:
            if position.partitions != partitions:
                raise ResumeError(
                    f"the replay began when the topic had {position.partitions} partitions and it has {partitions} "
                    "now, so it cannot be told which lines are there; replay onto an empty topic"
                )
        lines = dict.fromkeys(range(partitions), 0)
        for partition, position in positions:
            lines[partition] = max(lines[partition], position.line)
        return Reached(lines, min((position.shift for _, position in positions), default=None))


def read_topic(
    bootstrap: str,
    security: Mapping[str, str],
    topic: str,
    partitions: int,
    lateness_ms: int,
    wanted: Callable[[], bool] = lambda: True,
    progress: Callable[[int, int], None] = lambda read, total: None,
) -> OnTopic:
    """Read the topic through.

    An earlier run that was killed may have left requests that the broker is still taking in: it is read on until a
    second passes without a new record of a replay. `wanted` is asked now and then; False ends it early. `progress` is
    told how many messages were read, and of how many. `security`: the client's options beside the address.
    Raises ResumeError, and KafkaException when the broker goes away.
    """
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            **security,
            "group.id": "tickhouse-replay",
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
            "allow.auto.create.topics": False,
            "reconnect.backoff.max.ms": 1_000,
            "fetch.wait.max.ms": 100,
            "queued.max.messages.kbytes": _PREFETCH_KILOBYTES,
            "logger": _log,
        }
    )
    try:
        return _read(consumer, topic, partitions, lateness_ms, wanted, progress)
    finally:
        consumer.close()


def _read(
    consumer: Any,
    topic: str,
    partitions: int,
    lateness_ms: int,
    wanted: Callable[[], bool],
    progress: Callable[[int, int], None],
) -> OnTopic:
    bounds = [consumer.get_watermark_offsets(TopicPartition(topic, number), 30) for number in range(partitions)]
    consumer.assign([TopicPartition(topic, number, low) for number, (low, _) in enumerate(bounds)])
    total = sum(high - low for low, high in bounds)
    behind = {number for number, (low, high) in enumerate(bounds) if low < high}
    replays: dict[ReplayId, dict[int, Position]] = {}
    tally = Tally(lateness_ms, {})
    read = 0
    told = quiet_since = last = time.monotonic()
    while wanted() and (behind or time.monotonic() - quiet_since < _SETTLE_SECONDS):
        records = []
        for message in consumer.consume(_AT_ONCE, 0.1):
            error = message.error()
            if error is None:
                records.append(message)
            elif error.code() == KafkaError._PARTITION_EOF:
                behind.discard(message.partition())
            elif not error.retriable():
                raise KafkaException(error)
        now = time.monotonic()
        if records:
            last = now
            read += len(records)
            _count(tally, records)
            if _note(replays, records):
                quiet_since = now
            for record in records:
                if record.offset() >= bounds[record.partition()][1] - 1:
                    behind.discard(record.partition())
        elif behind and now - last > _STALLED_SECONDS:
            raise ResumeError(
                f"the broker sent nothing of {topic}, partition {min(behind)}, for {_STALLED_SECONDS:.0f} s; see the "
                "broker's log, then start the replay again"
            )
        if behind:
            quiet_since = now
        if now - told > _TELL_SECONDS:
            told = now
            progress(read, max(read, total))
    return OnTopic(replays, tally.recent())


def _count(tally: Tally, records: list[Any]) -> None:
    keys = pa.array([record.key() for record in records], pa.binary())
    values = pa.array([record.value() for record in records], pa.binary())
    times = np.array([record.timestamp()[1] for record in records], dtype=np.int64)
    verdicts = accept_batch(keys, values, times)
    for symbol, positions in verdicts.ticks_by_symbol():
        tally.add(symbol, verdicts.timestamps[positions])


def _note(replays: dict[ReplayId, dict[int, Position]], records: list[Any]) -> bool:
    """Keep the last position of each replay; whether there is any record of one."""
    # Of all that begin alike the last one is read: there may be millions.
    last = {
        (record.partition(), value.rsplit(b":", 2)[0]): value
        for record in records
        for name, value in record.headers() or ()
        if name == HEADER and value is not None
    }
    found = False
    for (partition, _), value in last.items():
        position = parse_header(value)
        if position is not None:
            replays.setdefault(position.replay, {})[partition] = position
            found = True
    return found
