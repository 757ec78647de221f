"""When everything has gone through, over a sequence of looks at a pipeline whose source goes on."""

from __future__ import annotations

import datetime
from typing import Any

from orchestration.lakehouse.tables import TableVersion
from orchestration.monitoring.drain_progress import Drain
from orchestration.serving.mongo import COLLECTIONS, Loaded
from orchestration.supervision.lag import Offsets
from tickhouse.contract.names import HIGHER_TOPIC, LOWER_TOPIC, MOVING_TOPIC, TICKS_TOPIC, ZSCORE_TOPIC
from tickhouse.contract.topology import JOBS, TOPICS

MOMENT = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


def ends(ticks: int, results: int) -> Offsets:
    return {topic: {0: ticks if topic == TICKS_TOPIC else results} for topic in TOPICS}


def beats(ticks: int, moving: int, saved: int) -> dict[str, dict[str, Any]]:
    """Heartbeats: so many ticks and statistics have been read, and so many results saved."""
    found: dict[str, dict[str, Any]] = {}
    for name, spec in JOBS.items():
        queries = {}
        for query, topics in spec.queries.items():
            read = {topic: ticks if topic == TICKS_TOPIC else moving for topic in topics}
            if query != name:
                read = dict.fromkeys(topics, saved)
            queries[query] = {"offsets": {topic: {"0": offset} for topic, offset in read.items()}}
        found[name] = {"queries": queries}
    return found


def loaded(version: int, table_id: str = "t") -> dict[str, Loaded]:
    return {name: Loaded(table_id, version, 0, MOMENT) for name in COLLECTIONS.values()}


def test_what_was_there_at_first_goes_through_although_the_source_goes_on() -> None:
    drain = Drain()
    first = drain.look(beats(50, 30, 30), ends(100, 40), TableVersion("t", 3), loaded(3))
    assert "query prices has 50 messages to go" in first
    assert "query zscores waits for what comes before it" in first

    # All ticks of the first look are read; of the results there are 95 by now, and more ticks have come.
    second = drain.look(beats(100, 40, 40), ends(300, 95), TableVersion("t", 3), loaded(3))
    assert "query zscore has 55 messages to go" in second
    assert "query moving_stats has 55 messages to go" in second
    assert not [reason for reason in second if "query prices " in reason or "query trend " in reason]

    third = drain.look(beats(200, 95, 95), ends(400, 195), TableVersion("t", 4), loaded(3))
    assert "query zscores has 100 messages to go" in third, "its end is known only since the zscore query is through"

    fourth = drain.look(beats(300, 195, 195), ends(500, 295), TableVersion("t", 5), loaded(4))
    assert fourth == [f"collection {name} is not at version 5 of zscores" for name in COLLECTIONS.values()]
    # The table goes on, what counts is the version of then.
    assert drain.look(beats(400, 295, 295), ends(600, 395), TableVersion("t", 9), loaded(5)) == []


def test_an_empty_pipeline_is_through() -> None:
    assert Drain().look(beats(0, 0, 0), ends(0, 0), None, {}) == []


def test_without_heartbeats_nothing_is_through() -> None:
    reasons = Drain().look({}, ends(5, 0), None, {})
    assert {"query prices has 5 messages to go", "query moving has 5 messages to go"} <= set(reasons)


def test_topics_that_are_not_known_are_waited_for() -> None:
    reasons = Drain().look(beats(9, 9, 9), {}, None, {})
    assert len(reasons) == 4 + len([MOVING_TOPIC, ZSCORE_TOPIC, HIGHER_TOPIC, LOWER_TOPIC])


def test_another_table_is_not_what_was_loaded() -> None:
    reasons = Drain().look(beats(0, 0, 0), ends(0, 0), TableVersion("new", 0), loaded(7))
    assert len(reasons) == len(COLLECTIONS)
