"""Offsets of a query by topic and partition, and their form in JSON, which has no numbers for keys."""

from __future__ import annotations

from collections.abc import Mapping

Offsets = dict[str, dict[int, int]]
"""Topic to partition to next offset."""
NamedOffsets = dict[str, dict[str, int]]
"""The same with partitions as texts: as Spark's Kafka source has them, and heartbeats."""


def named(offsets: Mapping[str, Mapping[int, int]]) -> NamedOffsets:
    """Offsets for JSON, in one order, as Spark compares them as texts."""
    return {
        topic: {str(number): offset for number, offset in sorted(parts.items())}
        for topic, parts in sorted(offsets.items())
    }


def numbered(offsets: Mapping[str, Mapping[str, int]]) -> Offsets:
    """Offsets out of JSON. Raises AttributeError, ValueError, TypeError for what are none."""
    return {topic: {int(number): int(offset) for number, offset in parts.items()} for topic, parts in offsets.items()}


def begin_at(first: Offsets, position: Offsets) -> Offsets:
    """Where a query at `position` goes on: at the `first` offsets there are, in partitions that it does not know."""
    return position | {topic: parts | position.get(topic, {}) for topic, parts in first.items()}
