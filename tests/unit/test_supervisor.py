"""The supervisor's decisions as tables of cases."""

from __future__ import annotations

import json
from typing import Any

import pytest

from orchestration.supervision.restart_policy import Decision, History, Life, Policy, decide
from orchestration.supervision.stream_health import Patience, StreamView, judge_stream

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
        pytest.param(
            {"history": History((1, 2, 3, 4)), "life": Life(5, got_on=True)},
            "start",
            1,
            False,
            id="down after getting on: at once, with a clean slate",
        ),
        pytest.param(
            {"history": History((1, 2, 3, 4)), "life": Life(5)}, "give up", 4, True, id="down without getting on"
        ),
        pytest.param(
            {"history": History((1, 2, 3, 4)), "life": Life(3, got_on=True)},
            "give up",
            4,
            True,
            id="it got on before an attempt that came to nothing",
        ),
        pytest.param(
            {"history": History((1,)), "running_seconds": 9_000.0, "life": Life(5)},
            "nothing",
            1,
            False,
            id="running for long without getting on: not healed",
        ),
        pytest.param(
            {"history": History((1,)), "running_seconds": 1.0, "life": Life(5, got_on=True)},
            "nothing",
            0,
            False,
            id="got on: healed",
        ),
        pytest.param(
            {"history": History((3,), since=2.0), "life": Life(4, refusal="why")},
            "give up",
            1,
            True,
            id="no restart can help: given up at once",
        ),
        pytest.param(
            {"history": History(since=2.0), "life": Life(4, got_on=True, refusal="why")},
            "give up",
            0,
            True,
            id="no restart can help one that got on for long",
        ),
        pytest.param(
            {"life": Life(4, refusal="why")}, "start", 1, False, id="refused before it was looked after: tried"
        ),
        pytest.param(
            {"history": History((3,), "another reason", since=2.0), "life": Life(4, refusal="why")},
            "give up",
            1,
            True,
            id="started by hand and refused for another reason",
        ),
        pytest.param(
            {"history": History((3,), "why", since=2.0), "life": Life(4, refusal="why"), "blocked_by": "Kafka is away"},
            "nothing",
            1,
            True,
            id="refused: left alone",
        ),
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


def lives(length: int, got_on: bool, seconds: int = 20_000) -> tuple[list[int], History]:
    """The starts, in seconds, of a stream that ends `length` seconds after each start, and what is thought of it."""
    history, starts = History(), list[int]()
    began: float | None = None
    for second in range(seconds):
        now = NOW + second
        running = None if began is None or now - began >= length else now - began
        life = None if began is None else Life(began + 1, got_on)
        decision = decided(history=history, now=now, running_seconds=running, life=life)
        history = decision.history
        if decision.action == "start":
            starts, began = [*starts, second], now
    return starts, history


def test_a_stream_that_is_killed_every_minute_and_gets_on_each_time_is_started_at_once_for_ever() -> None:
    starts, history = lives(60, got_on=True)
    assert starts == list(range(0, 20_000, 60))
    assert history.given_up is None


@pytest.mark.parametrize("length", [1, 30, 60, 300, 3_000])
def test_a_stream_that_always_ends_at_the_same_micro_batch_is_given_up_however_long_that_takes(length: int) -> None:
    starts, history = lives(length, got_on=False)
    assert len(starts) == POLICY.limit
    assert history.given_up


def test_history_survives_json() -> None:
    history = History((1.5, 2.5), "why", 0.5)
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


def query(got_on: bool = False, idle: bool = False, progress: str = LONG_AGO) -> dict[str, Any]:
    return {"batch_id": 1, "offsets": {}, "got_on": got_on, "idle": idle, "last_progress_at": progress}


@pytest.mark.parametrize(
    ("queries", "got_on"),
    [
        pytest.param([], False, id="no query yet"),
        pytest.param([query()], False, id="in its first micro-batch"),
        pytest.param([query(got_on=True)], True, id="a micro-batch is done"),
        pytest.param([query(got_on=True), query()], False, id="one gets on, one is stuck"),
        pytest.param([query(got_on=True), query(idle=True)], True, id="one gets on, one has nothing to do"),
        pytest.param([query(idle=True)], False, id="nothing to do, for a moment"),
        pytest.param([query(idle=True, progress=FRESH)], True, id="nothing to do, for long"),
        pytest.param([query(got_on=True), query(progress=FRESH)], True, id="nothing to do for long, then work"),
    ],
)
@pytest.mark.parametrize("alive", [True, False])
def test_what_a_life_was_good_for(queries: list[dict[str, Any]], got_on: bool, alive: bool) -> None:
    heartbeat = beat("running") | {"queries": {str(number): entry for number, entry in enumerate(queries)}}
    view = judge_stream(pid=7, alive=alive, started_at=NOW - 400, heartbeat=heartbeat, now=NOW)
    assert view.life == Life(NOW - 1, got_on)


@pytest.mark.parametrize(
    ("queries", "pid", "has_computed"),
    [
        pytest.param({}, 7, False, id="no query yet"),
        pytest.param({"moving": query(), "moving_stats": query(got_on=True)}, 7, False, id="only its table got on"),
        pytest.param({"moving": query(got_on=True), "moving_stats": query()}, 7, True, id="a micro-batch is done"),
        pytest.param({"moving": query(idle=True)}, 7, True, id="nothing to do"),
        pytest.param({"moving": query(got_on=True)}, 8, False, id="an earlier process"),
    ],
)
def test_whether_the_running_process_has_computed(queries: dict[str, Any], pid: int, has_computed: bool) -> None:
    heartbeat = beat("running") | {"job": "moving", "queries": queries}
    view = judge_stream(pid=pid, alive=True, started_at=NOW - 20, heartbeat=heartbeat, now=NOW)
    assert view.has_computed == has_computed


def test_a_refusal_is_that_of_the_last_process_alone() -> None:
    refused = beat("failed", error="why") | {"retry": False}
    view = judge_stream(pid=7, alive=False, started_at=STARTED, heartbeat=refused, now=NOW)
    assert view.life == Life(NOW - 1, refusal="why")
    earlier = judge_stream(pid=8, alive=False, started_at=STARTED, heartbeat=refused, now=NOW)
    assert earlier.life == Life(STARTED)
    failed = judge_stream(pid=7, alive=False, started_at=STARTED, heartbeat=refused | {"retry": True}, now=NOW)
    assert failed.life == Life(NOW - 1)
