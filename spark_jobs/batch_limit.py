"""Where the next micro-batch of a query ends: pure.

Belongs here: cutting what there is to the largest micro-batch. Does not belong here: asking what there is (`topics`).
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from math import ceil

from spark_jobs.gaps import Offsets


def next_ends(position: Mapping[str, Mapping[int, int]], ends: Mapping[str, Mapping[int, int]], most: int) -> Offsets:
    """Offsets by topic and partition after a micro-batch of some `most` messages at most.

    It begins at `position`, in a partition that is not there at 0, and goes to `ends` where it may. Else every
    partition has its share of it, as large as what is left in it is of the whole: all are done with at the same time.
    """
    left = {
        (topic, number): end - position.get(topic, {}).get(number, 0)
        for topic, parts in ends.items()
        for number, end in parts.items()
    }
    share = Fraction(min(most, sum(left.values())), max(1, sum(left.values())))
    return {
        # Rounded up, so that the least is not left for ever.
        topic: {number: end - left[topic, number] + ceil(left[topic, number] * share) for number, end in parts.items()}
        for topic, parts in ends.items()
    }
