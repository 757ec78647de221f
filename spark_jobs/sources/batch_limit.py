"""Where the next micro-batch of a query ends: pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from fractions import Fraction
from math import ceil

from tickhouse.kafka.offsets import Offsets

_AHEAD = Fraction(5, 4)
"""Messages of other topics to one that completes them: more than one, as some are never completed."""
_ALONE = Fraction(1, 10)
"""The share of the largest micro-batch that they may have when nothing completes them yet."""

_Left = dict[tuple[str, int], int]
"""How many messages are to be read, by topic and partition."""


def next_ends(
    position: Mapping[str, Mapping[int, int]],
    ends: Mapping[str, Mapping[int, int]],
    most: int,
    awaited: Collection[str] = (),
) -> Offsets:
    """Offsets by topic and partition after a micro-batch of some `most` messages at most.

    It begins at `position`, in a partition that is not there at 0, and goes to `ends` where it may. Else every
    partition has its share of it, as large as what is left in it is of the whole: all are done with at the same time.
    Messages that others, of the topics `awaited`, are to complete are not read long before these are there: until then
    they would be kept, and that anew in each micro-batch.
    """
    left = _left(position, ends)
    taken = left
    if awaited:
        completing = {place: count for place, count in left.items() if place[0] in awaited}
        others = {place: count for place, count in left.items() if place[0] not in awaited}
        taken = completing | _cut(others, ceil(max(most * _ALONE, sum(completing.values()) * _AHEAD)))
    taken = _cut(taken, most)
    return {
        topic: {number: end - left[topic, number] + taken[topic, number] for number, end in parts.items()}
        for topic, parts in ends.items()
    }


def between(position: Mapping[str, Mapping[int, int]], ends: Mapping[str, Mapping[int, int]]) -> int:
    """How many messages lie between offsets, the ends of transactions among them."""
    return sum(_left(position, ends).values())


def _left(position: Mapping[str, Mapping[int, int]], ends: Mapping[str, Mapping[int, int]]) -> _Left:
    return {
        (topic, number): end - position.get(topic, {}).get(number, 0)
        for topic, parts in ends.items()
        for number, end in parts.items()
    }


def _cut(left: _Left, most: int) -> _Left:
    """Of each the same share, so that there are some `most` in all: rounded up, lest the least is left for ever."""
    there = sum(left.values())
    share = Fraction(min(most, there), max(1, there))
    return {place: ceil(count * share) for place, count in left.items()}
