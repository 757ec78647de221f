"""A model of a stream, its checkpoint and its markers, driven through schedules of crashes, restores and losses.

Whatever happens, each result is there at most once; and a stream that stops is put right by a rebuild: each result of
the input is then there once. What is decided is decided by `tickhouse.kafka.markers` and `existing_results` themselves.
"""

from __future__ import annotations

import copy
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from spark_jobs.sinks.existing_results import add
from tickhouse.kafka.markers import NOTHING_PUBLISHED, Marker, MarkerMismatch, MicroBatch, is_published, limited, stops
from tickhouse.kafka.offsets import Offsets

TOPIC = "btc-price"
PARTITIONS = 2
"""Of the input, and of the state: a result of an even offset is of the one, of an odd offset of the other."""


@dataclass
class Checkpoint:
    """`ends` of the micro-batches; the last may be planned only."""

    ends: list[Offsets] = field(default_factory=list)
    done: int = 0
    existing: dict[int, set[int]] = field(default_factory=dict)
    """By state partition: results that were there when it was made."""
    life: int = 0

    @property
    def position(self) -> Offsets:
        return self.ends[self.done - 1] if self.done else {}

    @property
    def planned(self) -> Offsets | None:
        return self.ends[self.done] if len(self.ends) > self.done else None


@dataclass
class Kafka:
    """What is published, and the markers of each life of the checkpoint, by state partition."""

    markers: dict[tuple[int, int], Marker]
    results: list[list[tuple[int, int]]]


class World:
    """All there is."""

    def __init__(self) -> None:
        self.input = {TOPIC: dict.fromkeys(range(PARTITIONS), 0)}
        self.checkpoint = Checkpoint()
        self.kafka = Kafka(
            {(0, part): NOTHING_PUBLISHED for part in range(PARTITIONS)}, [[] for _ in range(PARTITIONS)]
        )
        self.backup = copy.deepcopy(self.checkpoint)
        self.earlier = copy.deepcopy(self.kafka)
        self.lives = 1

    def markers(self) -> list[Marker | None]:
        return [self.kafka.markers.get((self.checkpoint.life, part)) for part in range(PARTITIONS)]

    def run(self, largest: int, crash_at: int | None) -> None:
        """Start, do one micro-batch, and stop, or crash at the step `crash_at`. Raises MarkerMismatch."""
        checkpoint = self.checkpoint
        ways = stops(self.markers(), checkpoint.done - 1, checkpoint.position, checkpoint.planned)
        first = checkpoint.position or {TOPIC: dict.fromkeys(range(PARTITIONS), 0)}
        if checkpoint.planned is None:
            ends = limited(first, self.input, ways)
            cut = {number: min(end, first[TOPIC][number] + largest) for number, end in ends[TOPIC].items()}
            if cut == first[TOPIC]:
                return
            checkpoint.ends.append({TOPIC: cut})
        batch = MicroBatch(checkpoint.done, checkpoint.position, checkpoint.ends[checkpoint.done])
        for part in range(PARTITIONS):
            if crash_at == part:
                return
            marker = self.kafka.markers.get((checkpoint.life, part))
            if not is_published(marker, batch):
                self.publish(part, batch, first)
        if crash_at != PARTITIONS:
            checkpoint.done += 1

    def publish(self, part: int, batch: MicroBatch, first: Offsets) -> None:
        fresh = [
            (number, offset)
            for number, end in batch.ends[TOPIC].items()
            for offset in range(first[TOPIC][number], end)
            if offset % PARTITIONS == part and offset not in self.checkpoint.existing.get(number, ())
        ]
        self.kafka.results[part] += fresh
        marker = NOTHING_PUBLISHED._replace(number=batch.number + 1, ends=batch.ends)
        self.kafka.markers[self.checkpoint.life, part] = marker

    def rebuild(self) -> None:
        """As `tickhouse rebuild`, with a partition of the input in the place of a symbol."""
        there: dict[int, set[int]] = {}
        for number in range(PARTITIONS):
            offsets = [offset for results in self.kafka.results for place, offset in results if place == number]
            held = add(None, np.array(offsets), 0) if offsets else None
            times = np.arange(self.input[TOPIC][number])
            lacks = times if held is None else held.lacks(times)
            there[number] = set(times.tolist()) - set(lacks.tolist())
        self.checkpoint = Checkpoint(existing=there, life=self.lives)
        self.backup = copy.deepcopy(self.checkpoint)
        self.kafka.markers |= {(self.lives, part): NOTHING_PUBLISHED for part in range(PARTITIONS)}
        self.earlier = copy.deepcopy(self.kafka)
        self.lives += 1


STEPS = st.one_of(
    st.tuples(st.just("input"), st.integers(1, 9), st.integers(0, 9)),
    st.tuples(st.just("run"), st.integers(1, 9), st.none() | st.integers(0, PARTITIONS)),
    st.tuples(st.sampled_from(["copy checkpoint", "restore checkpoint", "copy broker", "restore broker"])),
    st.tuples(st.just("roll back"), st.integers(1, 3)),
    st.tuples(st.just("lose marker"), st.integers(0, PARTITIONS - 1)),
)


@settings(max_examples=400, deadline=None)
@given(st.lists(STEPS, max_size=40))
def test_every_result_once_whatever_happens(schedule: list[tuple[object, ...]]) -> None:
    world = World()
    for step in [*schedule, *[("run", 9, None)] * 60]:
        match step:
            case ("input", int(some), int(more)):
                world.input[TOPIC][0] += some
                world.input[TOPIC][1] += more
            case ("run", int(largest), crash_at):
                try:
                    world.run(largest, crash_at if isinstance(crash_at, int) else None)
                except MarkerMismatch:
                    world.rebuild()
            case ("copy checkpoint",):
                world.backup = copy.deepcopy(world.checkpoint)
            case ("restore checkpoint",):
                world.checkpoint = copy.deepcopy(world.backup)
            case ("copy broker",):
                world.earlier = copy.deepcopy(world.kafka)
            case ("restore broker",):
                world.kafka = copy.deepcopy(world.earlier)
            case ("roll back", int(batches)):
                # A power cut: the newest files are gone.
                del world.checkpoint.ends[max(0, len(world.checkpoint.ends) - batches) :]
                world.checkpoint.done = min(world.checkpoint.done, len(world.checkpoint.ends))
            case ("lose marker", int(part)):
                world.kafka.markers.pop((world.checkpoint.life, part), None)
        counted = Counter(result for results in world.kafka.results for result in results)
        assert all(count == 1 for count in counted.values())
    expected = {(number, offset) for number, end in world.input[TOPIC].items() for offset in range(end)}
    assert set(counted) == expected
