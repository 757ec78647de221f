"""When an alert is raised and cleared, and what is worth one, as tables of cases."""

from __future__ import annotations

from typing import Any

import pytest

from orchestration.monitoring.alerts import (
    LONGEST_BREAK,
    SCORE_CALM,
    STREAM_PATIENCE,
    Condition,
    Memory,
    decide,
    score_conditions,
    source_condition,
    stream_condition,
)
from orchestration.supervision.stream_health import StreamView

START = 1_000_000.0
WAIT = Condition("a", "a is amiss", "why", patience=30)
CALM = Condition("z", "z is far", "7", calm=300)


def run(looks: list[tuple[float, list[Condition]]], unknown: tuple[str, ...] = ()) -> list[tuple[float, str, str]]:
    """The changes by a sequence of looks, each some seconds after the start; the memory goes through its own form."""
    memory = Memory()
    told: list[tuple[float, str, str]] = []
    for after, conditions in looks:
        memory = Memory.model_validate_json(memory.model_dump_json())
        told += [(after, change.key, change.state) for change in decide(conditions, unknown, memory, START + after)]
    return told


@pytest.mark.parametrize(
    ("looks", "told"),
    [
        pytest.param([(0, [WAIT]), (15, [])], [], id="shorter than its patience"),
        pytest.param([(0, [WAIT]), (15, [WAIT]), (30, [WAIT]), (45, [WAIT])], [(30, "a", "raised")], id="once"),
        pytest.param(
            [(0, [WAIT]), (30, [WAIT]), (45, []), (60, [])], [(30, "a", "raised"), (45, "a", "cleared")],
            id="raised and cleared",
        ),
        pytest.param([(0, [WAIT]), (15, []), (30, [WAIT]), (45, [WAIT])], [], id="patience begins anew"),
        pytest.param(
            [(0, [WAIT]), (30, [WAIT]), (45, []), (60, [WAIT]), (90, [WAIT])],
            [(30, "a", "raised"), (45, "a", "cleared"), (90, "a", "raised")], id="raised again",
        ),
        pytest.param([(0, [CALM])], [(0, "z", "raised")], id="at once"),
        pytest.param(
            [(0, [CALM]), (60, []), (120, [CALM]), (180, []), (240, []), (300, []), (360, []), (420, []), (480, [])],
            [(0, "z", "raised"), (420, "z", "cleared")], id="what comes and goes is told once",
        ),
        pytest.param([(0, [WAIT]), (LONGEST_BREAK + 1, [WAIT])], [], id="a break is not patience"),
        pytest.param(
            [(0, [WAIT]), (30, [WAIT]), (999, [WAIT]), (1_010, [])], [(30, "a", "raised"), (1_010, "a", "cleared")],
            id="what was raised stands over a break",
        ),
        pytest.param(
            [(0, [WAIT]), (30, [WAIT]), (999, [])], [(30, "a", "raised"), (999, "a", "cleared")],
            id="cleared after a break",
        ),
    ],
)  # fmt: skip
def test_raised_and_cleared(looks: list[tuple[float, list[Condition]]], told: list[tuple[float, str, str]]) -> None:
    assert run(looks) == told


def test_what_cannot_be_looked_at_stays_as_it_was() -> None:
    memory = Memory()
    assert decide([CALM, WAIT], [], memory, START)
    decide([WAIT], [], memory, START + 30)
    assert decide([], ["z", "a"], memory, START + 100) == []
    assert {change.key for change in decide([], [], memory, START + 200)} == {"a"}
    assert {change.key for change in decide([], [], memory, START + 310)} == {"z"}


@pytest.mark.parametrize(
    ("view", "wanted", "given_up", "detail", "patience"),
    [
        (StreamView("running"), True, None, None, None),
        (StreamView("starting"), True, None, None, None),
        (StreamView("crashed"), False, None, None, None),
        (StreamView("crashed", error="no broker"), True, None, "crashed: no broker", STREAM_PATIENCE),
        (StreamView("stopped"), True, None, "stopped", STREAM_PATIENCE),
        (StreamView("hung", error="silent"), True, None, "hung: silent", STREAM_PATIENCE),
        (StreamView("crashed"), True, "eight times", "given up: eight times", 0.0),
        (StreamView("running"), True, "eight times", None, None),
    ],
)
def test_streams(
    view: StreamView, wanted: bool, given_up: str | None, detail: str | None, patience: float | None
) -> None:
    condition = stream_condition("moving", view, wanted, given_up)
    assert (condition.detail if condition else None, condition.patience if condition else None) == (detail, patience)


RUNNING: dict[str, Any] = {"source": "binance", "state": "running", "acknowledged": 7, "last_timestamp": "t"}


@pytest.mark.parametrize(
    ("source", "producer", "stale"),
    [
        pytest.param("binance", RUNNING, True, id="running and silent"),
        pytest.param("binance", RUNNING | {"state": "waiting", "note": "banned"}, True, id="waiting"),
        pytest.param("binance", RUNNING | {"state": "failed", "error": "no"}, True, id="failed"),
        pytest.param("binance", {}, True, id="never run"),
        pytest.param(None, RUNNING, True, id="a producer of its own"),
        pytest.param("replay:/x", RUNNING | {"source": "replay:/x"}, True, id="a recording that is stuck"),
        pytest.param("replay:/x", RUNNING | {"source": "replay:/x", "state": "ended"}, False, id="a recording ended"),
        pytest.param("binance", RUNNING | {"state": "stopped"}, False, id="stopped"),
        pytest.param(None, {}, False, id="nobody has said anything"),
    ],
)
def test_a_silent_source(source: str | None, producer: dict[str, Any], stale: bool) -> None:
    memory = Memory()
    for after in (0.0, 30.0, 59.0):
        assert source_condition(source, producer, 60, memory, START + after) is None
        decide([], [], memory, START + after)
    condition = source_condition(source, producer, 60, memory, START + 60)
    assert (condition is not None) == stale
    newer = producer | {"acknowledged": 8}
    assert source_condition(source, newer, 60, memory, START + 61) is None


def test_a_source_is_not_silent_for_as_long_as_the_stack_was_stopped() -> None:
    memory = Memory()
    source_condition("binance", RUNNING, 60, memory, START)
    decide([], [], memory, START)
    assert source_condition("binance", RUNNING, 60, memory, START + 999) is None


def test_scores_beyond_the_limit() -> None:
    extremes = {("BTCUSDT", "30s"): -6.5, ("BTCUSDT", "1h"): 5.9, ("ETHUSDT", "5m"): 6.0}
    found = score_conditions(extremes, 6)
    assert [condition.key for condition in found] == ["zscore:BTCUSDT:30s", "zscore:ETHUSDT:5m"]
    assert "-6.50" in found[0].detail and found[0].calm == SCORE_CALM
