"""The supervisor's decisions as tables of cases."""

from __future__ import annotations

import json
from typing import Any

import pytest

from orchestration.supervisor import Decision, History, Patience, Policy, StreamView, decide, judge_stream

POLICY = Policy(first_pause=5, longest_pause=60, limit=4, healing=120)
NOW = 1_000_000.0


def decided(**given: Any) -> Decision:
    defaults: dict[str, Any] = {"wanted": True, "running_seconds": None, "history": History(), "now": NOW}
    return decide(**(defaults | given), policy=POLICY)


@pytest.mark.parametrize(
    ("given", "action", "attempts", "given_up"),
    [
        pytest.param({}, "start", 1, False, id="down and wanted: at once"),
        pytest.param({"wanted": False}, "nothing", 0, False, id="down and not wanted: left alone"),
        pytest.param(
            {"wanted": False, "running_seconds": 9.0}, "nothing", 0, False, id="running and not wanted: left alone"
        ),
        pytest.param({"running_seconds": 9.0}, "nothing", 0, False, id="running and wanted"),
        pytest.param({"history": History((NOW - 4.9,))}, "wait", 1, False, id="second attempt not before 5 s"),
        pytest.param({"history": History((NOW - 5.0,))}, "start", 2, False, id="second attempt after 5 s"),
        pytest.param({"history": History((NOW - 30, NOW - 9))}, "wait", 2, False, id="third attempt not before 10 s"),
        pytest.param({"history": History((NOW - 30, NOW - 10))}, "start", 3, False, id="third attempt after 10 s"),
        pytest.param({"history": History((1, 2, 3, 4))}, "give up", 4, True, id="limit reached"),
        pytest.param({"history": History((1, 2, 3, 4), "why")}, "nothing", 4, True, id="given up: left alone"),
        pytest.param({"history": History((1,)), "running_seconds": 119.0}, "nothing", 1, False, id="not yet healed"),
        pytest.param({"history": History((1,)), "running_seconds": 120.0}, "nothing", 0, False, id="healed"),
        pytest.param(
            {"history": History((1, 2, 3, 4), "why"), "running_seconds": 0.0}, "nothing", 0, False, id="started by hand"
        ),
        pytest.param(
            {"history": History((1, 2), "why"), "wanted": False}, "nothing", 0, False, id="a new wish, a clean slate"
        ),
        pytest.param({"blocked_by": "Kafka is away"}, "wait", 0, False, id="blocked: no attempt lost"),
        pytest.param(
            {"blocked_by": "Kafka is away", "history": History((1, 2, 3, 4))}, "wait", 4, False, id="blocked at limit"
        ),
        pytest.param({"history": History((NOW + 3_600,))}, "start", 2, False, id="a clock set back does not block"),
    ],
)
def test_decision(given: dict[str, Any], action: str, attempts: int, given_up: bool) -> None:
    decision = decided(**given)
    assert decision.action == action
    assert len(decision.history.attempts) == attempts
    assert (decision.history.given_up is not None) == given_up


def test_reasons_tell_the_last_error_and_the_time() -> None:
    waiting = decided(history=History((NOW - 1,)), last_error="no space left")
    assert waiting.reason == "attempt 2 is due in 4 s: no space left"
    assert waiting.until == NOW + 4
    assert decided(history=History((1, 2, 3, 4)), last_error="no space left").history.given_up == (
        "down again after 4 attempts: no space left"
    )


def test_a_process_that_always_dies_is_tried_so_often_and_no_more() -> None:
    history, starts, now = History(), [], NOW
    for _ in range(1_000):
        decision = decided(history=history, now=now)
        history = decision.history
        if decision.action == "start":
            starts.append(now - NOW)
        now += 1
    assert starts == [0, 5, 15, 35]
    assert history.given_up


def test_a_process_that_dies_now_and_then_is_never_given_up() -> None:
    history, starts, now, up_since = History(), 0, NOW, None
    for second in range(20_000):
        if second % 200 == 0:
            up_since = None
        running = None if up_since is None else now - up_since
        decision = decided(history=history, now=now, running_seconds=running)
        history = decision.history
        if decision.action == "start":
            starts, up_since = starts + 1, now
        now += 1
    assert starts == 100
    assert history.given_up is None


def test_history_survives_json() -> None:
    history = History((1.5, 2.5), "why")
    assert History.from_json(json.loads(json.dumps(history.to_json()))) == history


STARTED = NOW - 100
FRESH = "1970-01-12T13:46:39.000Z"  # one second before NOW
STALE = "1970-01-12T13:45:00.000Z"
LONG_AGO = "1970-01-12T13:40:00.000Z"


def beat(state: str, *, pid: int = 7, written_at: str = FRESH, progress: str = FRESH, error: str | None = None) -> Any:
    queries = {"moving": {"batch_id": 1, "offsets": {}, "last_progress_at": progress}}
    return {"pid": pid, "state": state, "written_at": written_at, "error": error, "queries": queries}


@pytest.mark.parametrize(
    ("given", "state", "running", "error"),
    [
        pytest.param({"pid": None, "alive": False}, "stopped", False, None, id="never started"),
        pytest.param({"alive": False, "heartbeat": beat("stopped")}, "stopped", False, None, id="ended as asked"),
        pytest.param(
            {"alive": False, "heartbeat": beat("failed", error="boom")},
            "crashed",
            False,
            "boom",
            id="ended with a reason",
        ),
        pytest.param({"alive": False, "heartbeat": beat("running")}, "crashed", False, "without a word", id="killed"),
        pytest.param({"alive": False}, "crashed", False, "without a word", id="died before its first heartbeat"),
        pytest.param(
            {"alive": False, "heartbeat": beat("stopped", pid=6)},
            "crashed",
            False,
            "without a word",
            id="another's heartbeat",
        ),
        pytest.param({"alive": True}, "starting", True, None, id="no heartbeat yet"),
        pytest.param({"alive": True, "heartbeat": beat("starting")}, "starting", True, None, id="starting"),
        pytest.param(
            {"alive": True, "heartbeat": beat("running", pid=6)}, "starting", True, None, id="heartbeat of before"
        ),
        pytest.param(
            {"alive": True, "started_at": NOW - 121}, "hung", False, "not at work 121 s", id="never gets ready"
        ),
        pytest.param({"alive": True, "heartbeat": beat("running")}, "running", True, None, id="running"),
        pytest.param(
            {"alive": True, "heartbeat": beat("running", written_at=STALE)},
            "hung",
            False,
            "no heartbeat for 100 s",
            id="silent",
        ),
        pytest.param(
            {"alive": True, "heartbeat": beat("running", progress=LONG_AGO), "lag": 5, "started_at": NOW - 900},
            "hung",
            False,
            "no progress for 400 s, 5 messages wait",
            id="stalled",
        ),
        pytest.param(
            {"alive": True, "heartbeat": beat("running", progress=LONG_AGO), "lag": 0, "started_at": NOW - 900},
            "running",
            True,
            None,
            id="nothing to do",
        ),
        pytest.param(
            {"alive": True, "heartbeat": beat("running", progress=LONG_AGO), "started_at": NOW - 900},
            "running",
            True,
            None,
            id="lag unknown",
        ),
        pytest.param({"alive": True, "heartbeat": beat("stopping")}, "stopping", False, None, id="stopping"),
        pytest.param(
            {"alive": True, "heartbeat": beat("failed", error="boom")}, "stopping", False, "boom", id="about to end"
        ),
    ],
)
def test_judgement(given: dict[str, Any], state: str, running: bool, error: str | None) -> None:
    defaults: dict[str, Any] = {"pid": 7, "started_at": STARTED, "heartbeat": None, "now": NOW}
    view: StreamView = judge_stream(**(defaults | given), patience=Patience(starting=120, silent=45, stalled=300))
    assert view.state == state
    assert (view.running_seconds is not None) == running
    assert (error in view.error) if error and view.error else view.error is error
