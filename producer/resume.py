"""How far an earlier run of the same replay got, read from the topic itself.

Every replayed record carries a header with the replay's id and the number of its line. The partition of a line
depends on nothing but the line, and one partition holds its lines in order without gaps (an idempotent producer
that stops at the first failed delivery), so the last record of the replay in each partition says it all.

Belongs here: that header, and finding the last one. Does not belong here: sending (`publish`).
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from kafka import KafkaConsumer, TopicPartition  # type: ignore[import-untyped]

HEADER = "tickhouse-replay"

_WINDOW = 2_000  # records of the first look back; each further look is four times as long
_STALLED_SECONDS = 60.0
_SETTLE_SECONDS = 1.0
_FORM = re.compile(r"([0-9a-f]+-[a-z]+):([0-9]+):([0-9]+):(-?[0-9]+)")

_log = logging.getLogger(__name__)


class ResumeError(Exception):
    """The replay cannot go on from where it was; the text says why and what to do."""


class Position(NamedTuple):
    """What the header of a replayed record says; `line` counts from 1, `shift` is in microseconds."""

    replay: str
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
    replay, partitions, line, shift = match.groups()
    return Position(replay, int(partitions), int(line), int(shift))


class Reached(NamedTuple):
    """The last line in each partition, 0 where there is none, and the shift of the earlier run, None without one."""

    lines: dict[int, int]
    shift: int | None


def find_reached(
    bootstrap: str,
    security: Mapping[str, str],
    topic: str,
    replay: str,
    partitions: int,
    wanted: Callable[[], bool] = lambda: True,
) -> Reached:
    """Look for the last record of a replay in each partition.

    An earlier run that was killed may have left requests that the broker is still taking in: the look is repeated
    until a second passes without a new record of this replay. `wanted` is asked now and then; False ends it early.
    `security`: the client's arguments beside the address.
    Raises ResumeError, and KafkaError when the broker goes away.
    """
    consumer = KafkaConsumer(
        bootstrap_servers=bootstrap,
        **security,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        allow_auto_create_topics=False,
        reconnect_backoff_max_ms=1_000,
        metrics_enabled=False,
        fetch_max_wait_ms=100,
        max_poll_records=5_000,
    )
    try:
        assigned = [TopicPartition(topic, partition) for partition in range(partitions)]
        consumer.assign(assigned)
        floor: dict[Any, int] = consumer.beginning_offsets(assigned)
        found: dict[int, Position] = {}
        looks = 0
        while wanted():
            ends: dict[Any, int] = consumer.end_offsets(assigned)
            latest = {
                place.partition: position
                for place in assigned
                if wanted() and (position := _last(consumer, place, floor[place], ends[place], replay)) is not None
            }
            found.update(latest)
            looks += 1
            if looks > 1 and not latest:
                break
            floor = ends
            time.sleep(_SETTLE_SECONDS)
        return _reached(found, partitions)
    finally:
        consumer.close()


def _last(consumer: Any, place: Any, begin: int, end: int, replay: str) -> Position | None:
    """The last position of the replay at offsets [begin, end) of one partition, looked for from the end backwards."""
    window = _WINDOW
    while end > begin:
        start = max(begin, end - window)
        if end - start > 100_000:
            _log.info("looking for an earlier run: partition %d, offsets from %d to %d", place.partition, start, end)
        found = None
        for headers in _headers(consumer, place, start, end):
            for name, value in headers:
                position = parse_header(value) if name == HEADER and value is not None else None
                if position is not None and position.replay == replay:
                    found = position
        if found is not None:
            return found
        end, window = start, window * 4
    return None


def _headers(consumer: Any, place: Any, start: int, end: int) -> Iterator[Any]:
    """The headers of each record at offsets [start, end) of one partition."""
    consumer.pause(*consumer.assignment())
    consumer.resume(place)
    consumer.seek(place, start)
    progress = time.monotonic()
    while consumer.position(place) < end:
        records = consumer.poll(timeout_ms=500).get(place, ())
        for record in records:
            if record.offset < end:
                yield record.headers
        if records:
            progress = time.monotonic()
        elif time.monotonic() - progress > _STALLED_SECONDS:
            raise ResumeError(
                f"the broker sent nothing of {place.topic}, partition {place.partition}, for {_STALLED_SECONDS:.0f} s; "
                "see the broker's log, then start the replay again"
            )


def _reached(found: dict[int, Position], partitions: int) -> Reached:
    for position in found.values():
        if position.partitions != partitions:
            raise ResumeError(
                f"the replay began when the topic had {position.partitions} partitions and it has {partitions} now, so "
                "it cannot be told which lines are there; replay onto an empty topic"
            )
    lines = {partition: found[partition].line if partition in found else 0 for partition in range(partitions)}
    shifts = {position.shift for position in found.values()}
    return Reached(lines, min(shifts) if shifts else None)
