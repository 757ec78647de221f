"""When a stream that completes other streams' results begins its next micro-batch: as soon as there are some.

Streams in a row that all begin at multiples of one interval hand results on once an interval: what the first publishes
half-way waits for its end. One that begins when there is something new waits for nothing.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence

from spark_jobs.shutdown import StopRequest
from tickhouse.kafka.topics import TopicsUnknown, TopicWatch

_GLANCE_SECONDS = 0.05
_ANSWER_SECONDS = 5.0
_log = logging.getLogger(__name__)


class ResultWait:
    """Whether transactions have been committed to topics since the last look. `client`: librdkafka settings."""

    def __init__(self, topics: Sequence[str], client: Mapping[str, str]) -> None:
        self._topics = TopicWatch(topics, client, _ANSWER_SECONDS)
        self._known: dict[str, dict[int, int]] = {}

    def wait(self, until: float, stopping: StopRequest) -> None:
        """Wait for some, until a time of `time.monotonic`, or until the stream is to stop.

        Without an answer from the brokers it waits as long as it may: the query itself will say what is wrong.
        """
        try:
            while (ends := self._topics.committed()) == self._known and time.monotonic() < until:
                if stopping.wait(_GLANCE_SECONDS):
                    return
            self._known = ends
        except TopicsUnknown as error:
            _log.warning("waiting a whole interval, as the end of a topic is not known: %s", error)
            stopping.wait(until - time.monotonic())
