"""The judgement of the health checks, as tables of cases."""

from __future__ import annotations

from typing import Any

import pytest

from orchestration.monitoring.health_checks import CheckKey, StreamFacts, judge, live_since
from orchestration.monitoring.table_rules import FRESH_SECONDS, LAG_LIMIT
from orchestration.supervision.stream_health import StreamView
from tickhouse.contract.topology import JOBS

NOW = 1_800_000_000.0
WRITTEN = "2027-01-15T08:00:00.000Z"  # the same moment
RUNNING = StreamView("running", pid=7, running_seconds=9_999.0)


def outcome(stream: str, table: str, check: str, facts: StreamFacts, live: float | None = None) -> tuple[bool, str]:
    found = judge(stream, facts, live, NOW)[CheckKey(table, check)]
    return found.passed, found.description


def test_every_table_of_a_stream_is_judged() -> None:
    for name, spec in JOBS.items():
        tables = {key.asset for key in judge(name, StreamFacts(RUNNING, True, 0), None, NOW)}
        assert tables == set(spec.tables)


@pytest.mark.parametrize(
    ("facts", "passed", "said"),
    [
        (StreamFacts(StreamView("stopped"), False), True, "stopped, as wanted"),
        (StreamFacts(RUNNING, True), True, "running"),
        (StreamFacts(StreamView("starting"), True), True, "starting"),
        (StreamFacts(StreamView("crashed", error="no broker"), True), False, "crashed: no broker"),
        (StreamFacts(StreamView("crashed"), True, given_up="eight times"), False, "given up: eight times"),
    ],
)
def test_alive(facts: StreamFacts, passed: bool, said: str) -> None:
    assert outcome("moving", "moving_stats", "stream_alive", facts) == (passed, said)


@pytest.mark.parametrize(
    ("lag", "wanted", "passed"),
    [(0, True, True), (LAG_LIMIT - 1, True, True), (LAG_LIMIT, True, False), (None, True, False), (None, False, True)],
)
def test_lag(lag: int | None, wanted: bool, passed: bool) -> None:
    assert outcome("moving", "moving_stats", "lag", StreamFacts(RUNNING, wanted, lag))[0] == passed


@pytest.mark.parametrize(
    ("given", "live", "passed"),
    [
        pytest.param({"committed": NOW - 5}, NOW - 999, True, id="a live source and new rows"),
        pytest.param({"committed": NOW - FRESH_SECONDS}, NOW - 999, False, id="a live source and no new rows"),
        pytest.param({}, NOW - 999, False, id="a live source and no rows at all"),
        pytest.param({"committed": NOW - 99_999}, NOW - 30, True, id="the source has just begun"),
        pytest.param(
            {"committed": NOW - 99_999, "view": StreamView("running", running_seconds=30)}, NOW - 999, True,
            id="the stream has just begun",
        ),
        pytest.param({"committed": NOW - 99_999}, None, True, id="a recording that is through"),
        pytest.param({"committed": NOW - 99_999, "lag": 5}, None, False, id="messages wait and no rows come"),
        pytest.param({"committed": NOW - 99_999, "archive_lag": 5}, None, False, id="results wait and no rows come"),
        pytest.param({"committed": NOW - 5, "lag": 5_000}, None, True, id="a recording that goes through"),
        pytest.param({"committed": NOW - 99_999, "wanted": False}, NOW - 999, True, id="a stream that is stopped"),
    ],
)  # fmt: skip
def test_fresh(given: dict[str, Any], live: float | None, passed: bool) -> None:
    facts: dict[str, Any] = {"view": RUNNING, "wanted": True} | given
    facts["committed"] = {"higher": facts["committed"]} if "committed" in facts else {}
    assert outcome("trend", "higher", "fresh", StreamFacts(**facts), live)[0] == passed


@pytest.mark.parametrize(
    ("stream", "table", "check", "counter"),
    [("prices", "rejects", "rejected_share", "rejects"), ("moving", "moving_stats", "late_share", "late")],
)
def test_shares(stream: str, table: str, check: str, counter: str) -> None:
    for part, whole, passed in ((0, 0, True), (4, 100, True), (5, 100, False)):
        view = StreamView("running", heartbeat={counter: part, "input_rows": whole})
        assert outcome(stream, table, check, StreamFacts(view, True, 0))[0] == passed


@pytest.mark.parametrize(
    ("producer", "since"),
    [
        pytest.param({}, None, id="no producer"),
        pytest.param({"source": "binance", "state": "running"}, NOW - 50, id="live"),
        pytest.param({"source": "simulator", "state": "waiting"}, None, id="waiting"),
        pytest.param({"source": "binance", "state": "running", "written_at": "2027-01-15T07:59:00Z"}, None, id="dead"),
        pytest.param({"source": "replay:/x", "state": "running"}, None, id="a recording"),
        pytest.param({"source": "replay:/x", "state": "ended"}, None, id="a recording that has ended"),
    ],
)
def test_live_since(producer: dict[str, Any], since: float | None) -> None:
    assert live_since({"written_at": WRITTEN} | producer if producer else {}, NOW - 50, NOW) == since


@pytest.mark.parametrize(
    ("foreign", "passed", "said"),
    [
        ({}, True, "none"),
        ({"higher": {"messages": 5, "last_at": WRITTEN}}, True, "none"),
        ({"lower": {"messages": 1_234, "last_at": WRITTEN}}, False, "1,234 messages that are no results were left out"),
        ({"lower": {"messages": 2, "last_at": "2027-01-15T07:00:00.000Z"}}, True, "2 messages that are no results"),
    ],
)
def test_foreign_messages(foreign: dict[str, Any], passed: bool, said: str) -> None:
    view = StreamView("running", pid=7, running_seconds=9_999.0, heartbeat={"foreign": foreign})
    found = outcome("trend", "lower", "no_foreign_messages", StreamFacts(view, True, 0))
    assert found[0] == passed
    assert found[1].startswith(said)
