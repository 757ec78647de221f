"""When the first checks are due, as a table of cases and over a whole start."""

from __future__ import annotations

import pytest

from orchestration.monitoring.check_schedule import FIRST_MINUTES, MINUTE_OF_HOUR, MOMENTS, first_checks_due


@pytest.mark.parametrize(
    ("running", "since_last", "due"),
    [
        pytest.param(None, None, False, id="no stream runs"),
        pytest.param(119, None, False, id="too early"),
        pytest.param(120, None, True, id="the first moment"),
        pytest.param(150, 20, False, id="done for this moment"),
        pytest.param(150, 31, True, id="a run of before the start, or before the moment"),
        pytest.param(299, 170, False, id="not yet the second"),
        pytest.param(301, 170, True, id="the second moment"),
        pytest.param(86_400, 3_000, False, id="over: only the schedule"),
        pytest.param(86_400, None, True, id="never checked at all"),
    ],
)
def test_first_checks_are_due_once_for_each_moment(running: float | None, since_last: float | None, due: bool) -> None:
    assert first_checks_due(running, since_last) is due


def test_a_start_has_as_many_runs_as_moments_wherever_the_looks_fall() -> None:
    for first in range(30):
        launched: list[int] = []
        for running in range(first, 3_600, 30):
            if first_checks_due(running, running - launched[-1] if launched else None):
                launched.append(running)
        assert len(launched) == len(FIRST_MINUTES)
        assert all(0 <= at - 60 * minutes < 30 for at, minutes in zip(launched, FIRST_MINUTES, strict=True))


def test_the_sentence_says_the_moments() -> None:
    assert MOMENTS == "2, 5, 10 and 15 minutes after the streams have started, and then 7 minutes past each hour"
    assert MINUTE_OF_HOUR == 7
