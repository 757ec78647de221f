"""What Spark asks of the source of a computing query, and when, in the process that it has started for it.

Belongs here: offsets as Spark wants them, and the calls. Does not belong here: answering them (`topic_reader`).

Spark also has two processes that make such a reader only to send it on, each of which would import for half a second
what reads: at a start, when nothing is as short as processor time. So it is imported with the first question.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pyspark.sql.datasource import InputPartition
from pyspark.sql.datasource_internal import _SimpleStreamReaderWrapper

from spark_jobs.offsets import NamedOffsets, Offsets, named, numbered
from spark_jobs.reading import Reading

if TYPE_CHECKING:
    from spark_jobs.topic_reader import TopicReader


class SourceReader(_SimpleStreamReaderWrapper):
    """It gives Spark the rows along with the plan.

    Spark takes rows only from its own class of that kind, which asks for a micro-batch before it is planned and keeps
    what it got until the next is done: nothing but the name of it is used here.
    """

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._position: Offsets | None = None
        """Where the next micro-batch begins."""

    @cached_property
    def _topics(self) -> TopicReader:
        from spark_jobs.topic_reader import TopicReader

        return TopicReader(self._reading)

    def initialOffset(self) -> NamedOffsets:
        """Where a new query begins. Raises TopicsUnknown."""
        return named(self._topics.first())

    def latestOffset(self) -> NamedOffsets:
        """Where the next micro-batch ends; where it begins, if there is nothing new. Raises TopicsUnknown, CutOff."""
        if self._position is None:
            # A query that has begun before is told where it was (`partitions`) before anything else.
            self._position = self._topics.first()
        return named(self._topics.ends_after(self._position))

    def partitions(self, start: NamedOffsets, end: NamedOffsets) -> list[InputPartition]:
        """The one partition of a micro-batch. With `start` = `end` Spark tells where the query goes on."""
        self._position = numbered(end)
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
