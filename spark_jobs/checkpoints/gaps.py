"""Messages that a query was still to read and that are gone from the topic: pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from tickhouse.errors import NonRetryableError
from tickhouse.kafka.offsets import Offsets
from tickhouse.kafka.topics import Topic

_SHOWN = 4


class Gap(NamedTuple):
    """What is gone of one partition."""

    topic: str
    partition: int
    from_offset: int
    """Where the query was to go on."""
    to_offset: int | None
    """Where it can go on; None when the partition does not exist."""
    reason: Literal["removed by the broker", "cut off", "created again", "deleted"]

    @property
    def messages(self) -> int | None:
        """How many offsets are skipped; None when that cannot be known, because the offsets began anew or went back."""
        known = self.reason == "removed by the broker" and self.to_offset is not None
        return self.to_offset - self.from_offset if known and self.to_offset is not None else None

    def sentence(self) -> str:
        """The gap in words."""
        where = f"{self.topic} partition {self.partition}: offset {self.from_offset} is wanted"
        if self.to_offset is None:
            return f"{where}, but the {'partition' if self.reason == 'created again' else 'topic'} does not exist"
        if self.reason == "removed by the broker":
            return f"{where}, {self.to_offset} is the first available, {self.messages} messages are lost"
        if self.reason == "cut off":
            return f"{where}, but the topic ends at {self.to_offset}: its newest messages were lost by the broker"
        return (
            f"{where}, but the topic was deleted and created again, its offsets began anew (first available: "
            f"{self.to_offset}): what it held from {self.from_offset} on is lost, how much cannot be known"
        )


class DataLost(NonRetryableError):
    """Messages that a query was still to read are gone; the message names them, and how to go on past them."""


def find_gaps(
    wanted: Offsets, planned: Offsets | None, known_ids: Mapping[str, str], found: Mapping[str, Topic]
) -> list[Gap]:
    """What is gone of the messages from `wanted` on; empty when all are there.

    `planned`: the end of a micro-batch that has been begun from `wanted` on and is to be repeated, None when there is
    none. `known_ids`: the topics' ids when the query read them, as far as they are known; `found`: the topics as
    they are.
    """
    gaps: list[Gap] = []
    for topic, positions in wanted.items():
        state = found.get(topic)
        if state is None:
            gaps += [Gap(topic, partition, offset, None, "deleted") for partition, offset in positions.items()]
        elif known_ids.get(topic, state.topic_id) != state.topic_id:
            for partition in sorted(positions.keys() | state.partitions.keys()):
                extent = state.partitions.get(partition)
                first = extent.first if extent else None
                gaps.append(Gap(topic, partition, positions.get(partition, 0), first, "created again"))
        else:
            gaps += _gaps_of(topic, positions, (planned or {}).get(topic, {}), state)
    return gaps


def _gaps_of(topic: str, positions: Mapping[int, int], planned: Mapping[int, int], state: Topic) -> list[Gap]:
    gaps = []
    for partition, offset in positions.items():
        extent = state.partitions.get(partition)
        furthest = max(offset, planned.get(partition, offset))
        if extent is None:
            gaps.append(Gap(topic, partition, offset, None, "deleted"))
        elif offset < extent.first:
            gaps.append(Gap(topic, partition, offset, extent.first, "removed by the broker"))
        elif furthest > extent.end:
            gaps.append(Gap(topic, partition, furthest, extent.end, "cut off"))
    return gaps


def past(offsets: Offsets, gaps: Sequence[Gap]) -> Offsets:
    """The offsets moved past the gaps; one that is not in a gap stays what it is, unless its topic began anew."""
    moved = {topic: dict(positions) for topic, positions in offsets.items()}
    for gap in gaps:
        positions = moved.setdefault(gap.topic, {})
        if gap.to_offset is None:
            positions.pop(gap.partition, None)
        elif gap.reason == "removed by the broker":
            positions[gap.partition] = max(positions.get(gap.partition, 0), gap.to_offset)
        elif gap.reason == "cut off":
            positions[gap.partition] = min(positions.get(gap.partition, gap.to_offset), gap.to_offset)
        else:
            positions[gap.partition] = gap.to_offset
    return moved


def refusal(query: str, job: str, gaps: Sequence[Gap]) -> DataLost:
    """The gaps of a query as one sentence with the way past them."""
    told = "; ".join(gap.sentence() for gap in gaps[:_SHOWN])
    more = f"; and {len(gaps) - _SHOWN} partitions more" if len(gaps) > _SHOWN else ""
    missing = sorted({gap.topic for gap in gaps if gap.reason == "deleted"})
    first = f"create {', '.join(missing)} again, then " if missing else ""
    return DataLost(
        f"query {query} cannot go on without a gap: {told}{more}. To go on past it, and have that recorded: "
        f"{first}`tickhouse skip {job}`"
    )
