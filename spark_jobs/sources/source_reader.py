"""What Spark asks of the source of a computing query, and when, in the process that it has started for it.

Spark also has two processes that make such a reader only to send it on, each of which would import for half a second
what reads: at a start, when nothing is as short as processor time. So it is imported with the first question.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pyspark.sql.datasource import InputPartition, SimpleDataSourceStreamReader
from pyspark.sql.datasource_internal import _SimpleStreamReaderWrapper
from pyspark.sql.streaming.datasource import ReadLimit

from spark_jobs.sources.source_config import Reading
from tickhouse.kafka.offsets import NamedOffsets, named, numbered

if TYPE_CHECKING:
    from spark_jobs.sources.topic_reader import TopicReader


class SourceReader(_SimpleStreamReaderWrapper):
    """It gives Spark the rows along with the plan.

    Spark takes rows only from its own class of that kind, which asks for a micro-batch before it is planned and keeps
    what it got until the next is done: only its name is used here, and that Spark names the beginning of each
    micro-batch with no limit. Read in PySpark 4.2.0 (`python_streaming_source_runner`, `datasource_internal`).
    """

    def __init__(self, reading: Reading) -> None:
        # Spark asks the reader that it takes this to wrap for what it supports: nothing beyond the rest.
        super().__init__(SimpleDataSourceStreamReader())
        self._reading = reading

    @cached_property
    def _topics(self) -> TopicReader:
        from spark_jobs.sources.topic_reader import TopicReader

        return TopicReader(self._reading)

    def initialOffset(self) -> NamedOffsets:
        """Where a new query begins. Raises TopicsUnknown."""
        return named(self._topics.first())

    def latestOffset(self, start: NamedOffsets, limit: ReadLimit) -> NamedOffsets:
        """Where the micro-batch ends that begins at `start`; there, if there is nothing new.

        The limit is always "all": how much a micro-batch takes is for `Reading` to say. Raises TopicsUnknown, CutOff.
        """
        return named(self._topics.ends_after(numbered(start)))

    def partitions(self, start: NamedOffsets, end: NamedOffsets) -> list[InputPartition]:
        """The one partition of a micro-batch."""
        return [InputPartition(None)]

    def getCache(self, start: NamedOffsets, end: NamedOffsets) -> Iterator[Any]:
        """The rows of a micro-batch. Raises what `TopicReader.rows` raises."""
        return self._topics.rows(numbered(start), numbered(end))

    def commit(self, end: NamedOffsets) -> None:
        """Nothing is kept that could be let go of."""

    def stop(self) -> None:
        """Called when the query ends, and by a process that had nothing to ask."""
        if "_topics" in vars(self):
            self._topics.close()
