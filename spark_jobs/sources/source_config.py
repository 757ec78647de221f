"""What a computing query is to read: plain data that Spark sends to its workers."""

from __future__ import annotations

from typing import NamedTuple

from tickhouse.kafka.offsets import Offsets


class Reading(NamedTuple):
    """Topics, and how they are read."""

    topics: tuple[str, ...]
    client: dict[str, str]
    """librdkafka settings for reaching the brokers, the password among them."""
    largest_batch: int
    """In messages."""
    buckets: int
    """Into how many keys of Spark's state symbols are put."""
    awaited: tuple[str, ...] = ()
    """Of the topics, those whose messages complete those of the others (`jobs.JobSpec`)."""
    until: Offsets | None = None
    """Where to stop reading; None = never."""
    begins: Offsets | None = None
    """Where a new query begins; None = with the first message that is there."""
    stops: tuple[Offsets, ...] = ()
    """Where micro-batches must end on the way (`markers.stops`)."""

    def __repr__(self) -> str:
        return f"Reading(topics={self.topics}, bootstrap={self.client.get('bootstrap.servers')})"
