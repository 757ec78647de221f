"""Publishing from workers that take turns, as Spark gives a partition to whichever is free."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from orchestration.local.broker import create_topics
from spark_jobs.jobs import COUNTS
from spark_jobs.sinks import KafkaTarget, _Channel, next_unpublished
from tickhouse.contract.names import ZSCORE_TOPIC

pytestmark = pytest.mark.integration


def row(late: int) -> dict[str, Any]:
    return {**dict.fromkeys(COUNTS, 0), "late": late, "event_time": None, "results": None}


def test_a_worker_that_another_has_fenced_begins_anew_without_a_failure(
    broker: str, caplog: pytest.LogCaptureFixture
) -> None:
    create_topics(broker, (ZSCORE_TOPIC,))
    # The clients outlive the broker, as they do in workers, and would say so.
    target = KafkaTarget((ZSCORE_TOPIC,), {"bootstrap.servers": broker, "log_level": "0"})
    one, other = (_Channel("tickhouse-turns-0", target) for _ in range(2))
    with caplog.at_level(logging.WARNING):
        counted = [
            channel.publish(batch, [row(late=1)])["late"]
            for batch, channel in enumerate([one, one, other, one, other, other, one])
        ]
        assert one.publish(6, [row(late=1)])["late"] == 7, "a repeated micro-batch counts once"
    assert counted == [1, 2, 3, 4, 5, 6, 7]
    assert next_unpublished("turns", target, 1) == 7
    # A broker that is new to its coordination may be asked twice.
    assert [record for record in caplog.messages if "NOT_COORDINATOR" not in record] == []
