"""How far a query must get to have processed all that was there at its start."""

from __future__ import annotations

from typing import NamedTuple

from tickhouse.kafka.offsets import Offsets, begin_at
from tickhouse.kafka.topics import TopicWatch


class Goal(NamedTuple):
    """Offsets by topic and partition."""

    first: Offsets
    """Where a query begins that has no position in a partition: after what retention has removed."""
    ends: Offsets
    """As far as a `read_committed` reader could get: aborted transactions count, open ones do not."""

    def reached(self, position: Offsets) -> bool:
        """Whether a query at `position` has processed everything. It may have got further."""
        known = begin_at(self.first, position)
        return all(
            known.get(topic, {}).get(number, 0) >= end
            for topic, ends in self.ends.items()
            for number, end in ends.items()
        )


def goal_of(topics: TopicWatch) -> Goal:
    """What is there now. Raises TopicsUnknown."""
    ends = topics.committed()
    return Goal(topics.first(), ends)
