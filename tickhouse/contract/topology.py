"""The four stream jobs by name: what each reads and writes."""

from __future__ import annotations

from typing import NamedTuple

from tickhouse.contract.names import HIGHER_TOPIC, LOWER_TOPIC, MOVING_TOPIC, TICKS_TOPIC, ZSCORE_TOPIC


class JobSpec(NamedTuple):
    """One stream job. Its compute query is named after the job, its archive queries after their tables."""

    name: str
    inputs: tuple[str, ...]
    """Topics read."""
    outputs: tuple[str, ...]
    """Topics published to, exactly once."""
    tables: tuple[str, ...]
    """Delta tables written. Where there are output topics: one table for each, in the same order."""

    @property
    def archives(self) -> dict[str, str]:
        """Table to the topic that it is a copy of."""
        return dict(zip(self.tables, self.outputs, strict=True)) if self.outputs else {}

    @property
    def awaited(self) -> tuple[str, ...]:
        """Topics read on which other streams publish results; what else is read is of use only together with these."""
        return tuple(topic for topic in self.inputs if topic != TICKS_TOPIC)

    @property
    def queries(self) -> dict[str, tuple[str, ...]]:
        """The job's queries and the topics that each reads: the computation, and the copies of topics to tables."""
        return {self.name: self.inputs} | {table: (topic,) for table, topic in self.archives.items()}

    def publishes(self, query: str) -> bool:
        """Whether one of its queries publishes to topics; every other copies a topic to tables."""
        return query == self.name and bool(self.outputs)

    def written_by(self, query: str) -> tuple[str, ...]:
        """What one of its queries writes: topics and the tables copied from them, or a table alone."""
        return (*self.outputs, *self.tables) if query == self.name else (query,)


JOBS: dict[str, JobSpec] = {
    spec.name: spec
    for spec in (
        JobSpec("prices", (TICKS_TOPIC,), (), ("prices", "rejects")),
        JobSpec("moving", (TICKS_TOPIC,), (MOVING_TOPIC,), ("moving_stats",)),
        JobSpec("zscore", (TICKS_TOPIC, MOVING_TOPIC), (ZSCORE_TOPIC,), ("zscores",)),
        JobSpec("trend", (TICKS_TOPIC,), (HIGHER_TOPIC, LOWER_TOPIC), ("higher", "lower")),
    )
}
TOPICS = (TICKS_TOPIC, MOVING_TOPIC, ZSCORE_TOPIC, HIGHER_TOPIC, LOWER_TOPIC)
COUNTS = ("input_rows", "output_rows", "late", "duplicates", "rejects")
"""What every job counts, cumulatively since its checkpoint began: messages read, results published, ticks left out."""
TABLES = tuple(table for spec in JOBS.values() for table in spec.tables)
GAPS_TABLE = "gaps"
BACKFILLS_TABLE = "backfills"
