"""What the sensors conclude, as tables of cases."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from orchestration.defs.supervisor_cursor import CHECK_SECONDS, Memory, Seen, check_is_news, note_versions
from orchestration.lakehouse.tables import TableVersion
from orchestration.serving.load_policy import LOAD_POLICY, decide_load
from orchestration.serving.mongo import COLLECTIONS, Loaded
from orchestration.supervision.restart_policy import History
from orchestration.supervision.stream_health import StreamSnapshot, StreamView, decide_stream

NOW = 1_000_000.0
MOMENT = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


def all_loaded(version: int, table_id: str = "t") -> dict[str, Loaded]:
    return {name: Loaded(table_id, version, 0, MOMENT) for name in COLLECTIONS.values()}


FIRST = next(iter(COLLECTIONS.values()))


@pytest.mark.parametrize(
    ("given", "request_it", "reason"),
    [
        pytest.param({"newest": None}, False, "no table", id="no table"),
        pytest.param({}, False, "version 5 is loaded", id="up to date"),
        pytest.param({"failures": [NOW - 999]}, False, "version 5 is loaded", id="up to date after a failure"),
        pytest.param({"loaded": {}}, True, "6 collections behind", id="never loaded"),
        pytest.param({"loaded": all_loaded(4)}, True, "6 collections behind", id="new rows"),
        pytest.param({"loaded": all_loaded(5, "old")}, True, "6 collections behind", id="a new table"),
        pytest.param({"loaded": all_loaded(6)}, True, "6 collections behind", id="the table went back"),
        pytest.param(
            {"loaded": all_loaded(5) | {FIRST: Loaded("t", 4, 0, MOMENT)}},
            True,
            "1 collections behind",
            id="one behind",
        ),
        pytest.param({"loaded": all_loaded(4), "in_flight": True}, False, "under way", id="a load is under way"),
        pytest.param(
            {"loaded": all_loaded(4), "failures": [NOW - 4]}, False, "is due in 1 s", id="soon after a failure"
        ),
        pytest.param(
            {"loaded": all_loaded(4), "failures": [NOW - 5]}, True, "attempt 2", id="repeated, no new rows needed"
        ),
        pytest.param(
            {"loaded": all_loaded(4), "failures": [NOW - 99, NOW - 9]}, False, "is due in 1 s", id="pauses grow"
        ),
        pytest.param(
            {"loaded": all_loaded(4), "failures": [NOW - 9_999] * LOAD_POLICY.limit},
            False,
            "given up",
            id="at the limit",
        ),
    ],
)
def test_load_decision(given: dict[str, Any], request_it: bool, reason: str) -> None:
    defaults: dict[str, Any] = {
        "newest": TableVersion("t", 5),
        "loaded": all_loaded(5),
        "in_flight": False,
        "failures": [],
        "now": NOW,
    }
    decision = decide_load(**(defaults | given))
    assert decision.request == request_it
    assert reason in decision.reason


@pytest.mark.parametrize(
    ("sight", "away", "action"),
    [
        (StreamSnapshot(StreamView("crashed", error="boom\nmore"), wanted=True, pending=False), None, "start"),
        (StreamSnapshot(StreamView("hung", 7), wanted=True, pending=False), None, "start"),
        (StreamSnapshot(StreamView("stopped"), wanted=True, pending=False), None, "start"),
        (StreamSnapshot(StreamView("crashed"), wanted=True, pending=True), None, "nothing"),
        (StreamSnapshot(StreamView("crashed"), wanted=False, pending=False), None, "nothing"),
        (StreamSnapshot(StreamView("starting", 7, 3.0), wanted=True, pending=False), None, "nothing"),
        (StreamSnapshot(StreamView("running", 7, 3.0), wanted=True, pending=False), None, "nothing"),
        (StreamSnapshot(StreamView("crashed"), wanted=True, pending=False), "Kafka is away", "wait"),
    ],
)
def test_stream_decision(sight: StreamSnapshot, away: str | None, action: str) -> None:
    decision = decide_stream(sight, History(), NOW, away)
    assert decision.action == action
    assert "more" not in decision.reason


def test_a_run_under_way_keeps_the_history() -> None:
    history = History((1.0, 2.0))
    sight = StreamSnapshot(StreamView("crashed"), wanted=True, pending=True)
    assert decide_stream(sight, history, NOW, None).history == history


def test_a_version_counts_from_when_it_was_first_seen() -> None:
    memory = Memory(tables={name: Seen("a", 3, 5.0) for name in ("same", "advanced", "made anew", "gone")})
    found = {
        "same": TableVersion("a", 3),
        "advanced": TableVersion("a", 4),
        "made anew": TableVersion("b", 3),
        "first": TableVersion("a", 0),
    }
    note_versions(found, memory, NOW)
    assert memory.tables == {
        "same": Seen("a", 3, 5.0),
        "advanced": Seen("a", 4, NOW),
        "made anew": Seen("b", 3, NOW),
        "first": Seen("a", 0, NOW),
    }


def test_a_check_is_news_when_it_changes_and_now_and_then() -> None:
    memory = Memory(checks={"k": (True, "running", NOW - 10)})
    assert not check_is_news("k", True, "running", memory, NOW)
    assert check_is_news("k", False, "crashed", memory, NOW)
    assert check_is_news("k", True, "starting", memory, NOW)
    assert check_is_news("k", True, "running", memory, NOW - 10 + CHECK_SECONDS)
    assert check_is_news("other", True, "running", memory, NOW)


def test_memory_survives_the_cursor() -> None:
    memory = Memory(
        {"moving": History((1.5,), "why")}, {"prices": Seen("a", 3, 2.5)}, {"k": (True, "d", 3.5)}, 4.5, {"n": 6}
    )
    assert Memory.from_cursor(memory.to_cursor()) == memory
    assert Memory.from_cursor(None) == Memory.from_cursor("") == Memory()


@pytest.mark.parametrize(
    "cursor", ["nonsense", "{}", "[]", '{"form": 0}', '{"form": 1}', '{"form": 1, "histories": []}']
)
def test_a_cursor_of_another_form_is_refused(cursor: str) -> None:
    with pytest.raises(ValueError):
        Memory.from_cursor(cursor)
