"""What the board draws and says, of what is stored: pure functions."""

from __future__ import annotations

import datetime
import json
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from orchestration.board import figures, panels
from orchestration.board.downsampling import extremes, last_of_each
from orchestration.board.guard import Guard
from orchestration.board.market import Market, Reading
from orchestration.board.rows import Rows
from orchestration.board.view import View, view_of, view_of_search
from orchestration.monitoring.alert_log import Alert
from orchestration.monitoring.status import ProducerStatus, Status, StreamStatus
from tickhouse.contract.names import WINDOWS

NOW = 1_800_000_000.0
VIEW = View("BTCUSDT", "5m", "15min")
SYMBOLS = ("BTCUSDT", "ETHUSDT")


def rows(count: int, numbers: int = 1, *, end_ms: int = int(NOW * 1_000), seed: int = 1) -> Rows:
    """Ticks 100 ms apart, the last at `end_ms`; each number is its own walk."""
    times = end_ms - 100 * np.arange(count, dtype=np.int64)[::-1]
    return Rows(times, 100 + np.cumsum(np.random.default_rng(seed).normal(size=(numbers, count)), axis=1))


def market(count: int = 9_000) -> Market:
    return Market(
        "token",
        rows(count),
        rows(count, 12),
        rows(count, seed=2),
        rows(count, seed=3),
        {window: rows(count, seed=position) for position, window in enumerate(WINDOWS)},
    )


def status(**fields: Any) -> Status:
    streams = {name: StreamStatus(state="running", pid=1) for name in ("prices", "moving")}
    given: dict[str, Any] = {
        "source": "simulator", "source_note": "SIMULATED by a local exchange, as asked", "kafka_bootstrap": "k",
        "mongo_uri": "m", "lakehouse": "l", "dagster_url": None, "producer": ProducerStatus(state="running"),
        "streams": streams, "load": {}, "services": {}, "drained": False, "waiting_for": [], "problems": [],
    }  # fmt: skip
    return Status(**given | fields)


def told(part: Any) -> str:
    """All text of a component, in order."""
    if isinstance(part, (list, tuple)):
        return "".join(map(told, part))
    return told(part.children) if hasattr(part, "children") else "" if part is None else str(part)


@pytest.mark.parametrize(
    ("search", "expected"),
    [
        ("?symbol=ETHUSDT&window=1h&span=1h", View("ETHUSDT", "1h", "1h")),
        ("?symbol=NEW.ONE", View("NEW.ONE", "1m", "15min")),
        ("?symbol=%3Cscript%3E&window=2m&span=9", View("BTCUSDT", "1m", "15min")),
        ("?symbol=A%27B", View("BTCUSDT", "1m", "15min")),
        ("", View("BTCUSDT", "1m", "15min")),
        (None, View("BTCUSDT", "1m", "15min")),
        (7, View("BTCUSDT", "1m", "15min")),
    ],
)
def test_an_address_names_a_view_or_the_usual_one(search: Any, expected: View) -> None:
    assert view_of_search(search, SYMBOLS) == expected
    assert view_of_search(expected.search, SYMBOLS) == expected


def test_what_is_no_choice_is_none() -> None:
    assert view_of(["X"], {"a": 1}, None, SYMBOLS) == View("BTCUSDT", "1m", "15min")


def test_the_points_drawn_are_stored_ones_and_have_every_peak() -> None:
    many = rows(36_000)
    start, end = int(many.times[0]), int(many.times[-1])
    some = extremes(many, start, end)
    assert 300 < len(some.times) <= 4 * 301
    stored = dict(zip(many.times.tolist(), many.values[0].tolist(), strict=True))
    assert all(stored[time] == value for time, value in zip(some.times.tolist(), some.values[0].tolist(), strict=True))
    assert (np.diff(some.times) > 0).all()
    length = -(-(end - start) // 300)
    for first in range(start, end, length):
        whole = many.since(first).before(first + length).values[0]
        drawn = some.since(first).before(first + length).values[0]
        assert (drawn.min(), drawn.max(), drawn[0], drawn[-1]) == (whole.min(), whole.max(), whole[0], whole[-1])


def test_few_points_are_all_drawn_and_a_gap_stays_a_gap() -> None:
    few = rows(500)
    assert extremes(few, int(few.times[0]), int(few.times[-1])) is few
    many = rows(9_000)
    many.values[0, 4_000:4_500] = np.nan
    some = extremes(many, int(many.times[0]), int(many.times[-1]))
    gap = np.isnan(some.values[0])
    assert gap.any()
    assert ((some.times[gap] >= many.times[4_000]) & (some.times[gap] < many.times[4_500])).all()
    assert last_of_each(many, int(many.times[0]), int(many.times[-1])).times[-1] == many.times[-1]


def test_the_band_is_two_deviations_around_the_average_as_stored() -> None:
    shown = market()
    figure = figures.price_figure(shown, VIEW, "light")
    lower, upper, average, price = figure["data"]
    position = list(WINDOWS).index("5m")
    stored = {
        int(time): values
        for time, values in zip(
            shown.statistics.times, shown.statistics.values[[position, 6 + position]].T, strict=True
        )
    }
    for time, low, high, middle in zip(average["x"], lower["y"], upper["y"], average["y"], strict=True):
        mean, deviation = stored[time]
        assert (low, high, middle) == (mean - 2 * deviation, mean + 2 * deviation, mean)
    assert price["x"][-1] == shown.end
    assert figure["layout"]["xaxis"]["range"] == [shown.end - 900_000, shown.end]
    assert json.loads(json.dumps(figure, allow_nan=False)) == figure


def test_what_is_zoomed_into_stays_while_time_goes_on() -> None:
    shown = market()
    zoomed = replace(VIEW, zoom=(shown.end - 60_000, shown.end - 30_000))
    for figure in (figures.price_figure, figures.scores_figure, figures.waits_figure):
        assert figure(shown, zoomed, "light")["layout"]["xaxis"]["range"] == [shown.end - 60_000, shown.end - 30_000]


@pytest.mark.parametrize("told", [None, [], [2, 1], [1, "2"], [1.5, 2], "12", [-1, 5], {"0": 1}])
def test_what_is_no_zoom_is_none(told: object) -> None:
    assert view_of("BTCUSDT", "5m", "15min", SYMBOLS, told) == VIEW
    assert view_of("BTCUSDT", "5m", "15min", SYMBOLS, [1, 2]).zoom == (1, 2)


def test_the_picked_window_stands_out_and_no_two_lines_differ_by_colour_alone() -> None:
    figure = figures.scores_figure(market(), VIEW, "dark")
    *lines, marks = figure["data"]
    assert [line["name"] for line in lines] == list(WINDOWS)
    (picked,) = (line for line in lines if line["name"] == "5m")
    assert picked["zorder"] > max(line["zorder"] for line in lines if line is not picked)
    assert picked["opacity"] > max(line["opacity"] for line in lines if line is not picked)
    assert len({line["line"]["dash"] for line in lines if line is not picked}) == len(WINDOWS) - 1
    assert marks["mode"] == "markers"
    assert sorted(shape["y0"] for shape in figure["layout"]["shapes"]) == [-3, -2, 2, 3]
    higher, lower = figures.waits_figure(market(), VIEW, "light")["data"]
    assert higher["marker"]["symbol"] != lower["marker"]["symbol"]


def test_windows_that_are_not_full_and_say_the_same_are_all_seen() -> None:
    same = Market("token", rows(600), scores=dict.fromkeys(WINDOWS, rows(600)))
    lines = figures.scores_figure(same, View("BTCUSDT", "30s", "15min"), "light")["data"][1 : len(WINDOWS)]
    for above, below in pairwise(lines):
        assert below["line"]["width"] > above["line"]["width"]
        assert below["zorder"] < above["zorder"]


def test_z_scores_beyond_the_axis_leave_room_for_the_others_and_are_marked_at_its_edge() -> None:
    values = np.zeros((1, 600))
    values[0, [3, 7]] = 7.25, -21.0
    plain = Rows(rows(600).times, np.where(values == 0, 2.0, 0.0))
    peaks = Rows(plain.times, values)
    shown = Market("token", scores={window: peaks if window == "1m" else plain for window in WINDOWS})
    figure = figures.scores_figure(shown, VIEW, "light")
    low, high = figure["layout"]["yaxis"]["range"]
    assert -6 < low < -5 < 5 < high < 6
    *lines, marks = figure["data"]
    assert lines[1]["y"] == values[0].tolist(), "the line itself is of the stored values"
    assert marks["name"] == "beyond ±5"
    assert marks["x"] == [int(plain.times[3]), int(plain.times[7])]
    assert marks["y"] == [5.0, -5.0]
    assert marks["marker"]["symbol"] == ["triangle-up", "triangle-down"]
    calm = figures.scores_figure(replace(shown, scores=dict.fromkeys(WINDOWS, plain)), VIEW, "light")
    assert [line["name"] for line in calm["data"]] == list(WINDOWS), "there is nothing to mark"


def test_both_halves_of_the_waits_have_labels_of_one_form() -> None:
    layout = figures.waits_figure(market(), VIEW, "light")["layout"]
    above, below = layout["yaxis"], layout["yaxis2"]
    assert (above["ticktext"], below["ticktext"]) == (["0 s", "10 s", "20 s"], ["10 s", "20 s"])


def test_a_zoom_outlives_new_data_and_another_window_but_not_another_symbol() -> None:
    def revision(view: View) -> Any:
        return figures.price_figure(market(), view, "light")["layout"]["uirevision"]

    assert revision(VIEW) == revision(View("BTCUSDT", "1h", "15min"))
    assert revision(VIEW) != revision(View("ETHUSDT", "5m", "15min"))


@pytest.mark.parametrize("draw", [figures.price_figure, figures.scores_figure, figures.waits_figure])
def test_nothing_is_said_to_be_nothing(draw: Any) -> None:
    for nothing in (None, Market("token")):
        figure = draw(nothing, VIEW, "light")
        assert figure["data"] == []
        assert "of BTCUSDT" in figure["layout"]["annotations"][0]["text"]


def test_where_prices_come_from_is_said_plainly() -> None:
    simulated = panels.source_notice(status())
    assert (simulated.text, simulated.detail) == ("SIMULATED PRICES", "by a local exchange, as asked")
    why = "by a local exchange, because Binance does not answer (gaierror: [Errno -2] Name or service not known)"
    away = panels.source_notice(status(source_note=f"SIMULATED {why}"))
    assert (away.text, away.detail, away.full) == ("SIMULATED PRICES", "Binance cannot be reached", why)
    assert panels.source_notice(status(source="binance", source_note=None)).text == "LIVE"
    replay = panels.source_notice(status(source="replay:/a/day.jsonl.gz", producer=ProducerStatus(state="ended")))
    assert (replay.text, replay.detail) == ("REPLAY", "of the recording day.jsonl.gz, which has ended")
    assert panels.source_notice(status(source=None)).text == "NO SOURCE"


def test_how_old_data_is_is_said_plainly() -> None:
    def said(age: float, **fields: Any) -> str:
        shown = Market("token", rows(10, end_ms=int((NOW - age) * 1_000)))
        notice = panels.freshness_notice(status(**fields), shown, NOW, 10)
        return f"{notice.tone}: {notice.text} · {notice.detail}"

    nothing = "bands none · z-scores none · higher/lower none"
    assert said(48) == f"good: Prices until 07:59:12 UTC, 48 s ago · {nothing}"
    assert said(600).startswith("bad: Prices until 07:50:00 UTC, 10 min ago · stale")
    assert said(90_000).startswith("bad: Prices until 2027-01-14 07:00:00 UTC, 25 h ago · stale")
    assert said(20_000_000, source="replay:x").startswith("good: Prices until 2026-05-28")
    stopped = {"streams": {"moving": StreamStatus(state="stopped")}, "producer": ProducerStatus(state="stopped")}
    assert said(5, **stopped).endswith("the stack is stopped")
    assert panels.freshness_notice(status(), None, NOW, 10).text == "Nothing yet"
    assert panels.freshness_notice(None, None, NOW, 10).text == "Reading…"


def lagging(bands: float, scores: float, higher: float, lower: float, prices: float = 7.0) -> Market:
    """Parts that end so many seconds ago, as each is stored at another time."""

    def until(seconds: float, seed: int, numbers: int = 1) -> Rows:
        return rows(9_000, numbers, end_ms=int((NOW - seconds) * 1_000), seed=seed)

    return Market(
        "token",
        until(prices, 1),
        until(bands, 2, 12),
        until(higher, 3),
        until(lower, 4),
        {window: until(scores, 5 + position) for position, window in enumerate(WINDOWS)},
    )


def test_until_when_each_result_is_there_is_said_and_which_are_behind() -> None:
    def said(shown: Market, lateness: float = 10, **fields: Any) -> tuple[str, str]:
        notice = panels.freshness_notice(status(**fields), shown, NOW, lateness)
        assert notice.text == "Prices until 07:59:53 UTC, 7 s ago"
        return notice.tone, notice.detail

    assert said(lagging(20, 34, 41, 44)) == ("good", "bands 20 s · z-scores 34 s · higher/lower 44 s")
    slow = lagging(68, 86, 41, 200)
    assert said(slow) == ("warn", "bands 68 s, behind · z-scores 86 s · higher/lower 3 min, behind")
    assert said(slow, lateness=200)[0] == "good", "results wait as long as they are told to"
    assert said(slow, source="replay:x")[0] == "good", "at any speed"
    missing = replace(lagging(20, 34, 41, 44), scores=Market("token").scores)
    assert said(missing) == ("warn", "bands 20 s · z-scores none, behind · higher/lower 44 s")
    begun = replace(missing, prices=rows(300, end_ms=int((NOW - 7) * 1_000)))
    assert said(begun) == ("good", "bands 20 s · z-scores none · higher/lower 44 s")


def test_the_four_numbers_are_of_one_tick_however_far_the_tables_are_apart() -> None:
    shown = lagging(20, 34, 41, 44)
    position = list(WINDOWS).index("5m")
    at = int((NOW - 34) * 1_000)

    def stored(part: Rows, number: int = 0) -> float:
        return float(part.values[number, part.times.tolist().index(at)])

    reading = shown.reading("5m")
    assert reading == Reading(
        at,
        stored(shown.prices),
        stored(shown.statistics, position),
        stored(shown.statistics, len(WINDOWS) + position),
        stored(shown.scores["5m"]),
    )
    price, average, deviation, z_score = reading[1:]
    assert [told(part) for part in panels.numbers(shown, VIEW, NOW)] == [
        "tick of07:59:26.000 UTC",
        f"price{panels.price_text(price)}",
        f"average 5m{panels.price_text(average)}",
        f"σ 5m{panels.price_text(deviation)}",
        f"z-score 5m{z_score:+.2f}",
    ]
    assert [told(part) for part in panels.newest(shown, NOW)] == [
        f"newest price, 07:59:53.000 UTC{panels.price_text(shown.prices.values[0, -1])}"
    ]


def test_a_tick_that_has_gaps_around_it_or_came_twice_is_still_the_one() -> None:
    def part(times: list[int], *values: list[float]) -> Rows:
        return Rows(np.array(times), np.array(values))

    statistics = [[10.0, 11.0, 12.0]] * len(WINDOWS) + [[1.0, 2.0, 0.0]] * len(WINDOWS)
    shown = Market(
        "token",
        # Of 300 there are two messages, of which the first counts; of 500 there is nothing yet but the price.
        part([100, 300, 300, 500], [9.0, 13.0, 99.0, 15.0]),
        part([100, 300, 400], *statistics),
        scores=dict.fromkeys(WINDOWS, part([100, 200, 300, 400], [-1.0, 0.0, 1.0, 2.0])),
    )
    assert shown.reading("1h") == Reading(300, 13.0, 11.0, 2.0, 1.0)
    assert Market("token", shown.prices, shown.statistics).reading("1h") is None
    still = replace(shown, scores=dict.fromkeys(WINDOWS, part([300], [np.nan])))
    assert told(panels.numbers(still, VIEW, NOW)[-1]) == "z-score 5m–", "a price that stands still has none"


def test_streams_alerts_and_problems_are_told_in_words() -> None:
    broken = StreamStatus(state="given_up", error="no space\nTraceback", lag=1_234_567)
    seen = status(streams={"moving": broken}, problems=[])
    table = told(panels.streams_table(seen, NOW))
    assert "given up" in table
    assert "1,234,567" in table
    assert told(panels.problems_list(["MongoDB at m does not answer"], seen)) == (
        "▲MongoDB at m does not answer▲moving: no space"
    )
    at = datetime.datetime.fromtimestamp(NOW, datetime.UTC)
    shown = told(panels.alerts_list([Alert(at=at, key="k", state="raised", title="<b>bold</b>")], NOW))
    assert shown == "▲raised: <b>bold</b>08:00:00 UTC"
    assert told(panels.alerts_list([], NOW)) == "No alerts so far."
    assert [told(part) for part in panels.numbers(None, VIEW, NOW)] == ["price–", "average 5m–", "σ 5m–", "z-score 5m–"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (99_353.89, "99,353.89"),
        (604.12, "604.120"),
        (1.5, "1.50000"),
        (0.18213, "0.1821"),
        (0.00001312, "0.00001312"),
        (0.0, "0"),
        (None, "–"),
    ],
)
def test_prices_have_the_digits_that_matter(value: float | None, text: str) -> None:
    assert panels.price_text(value) == text


@pytest.mark.parametrize(
    ("host", "passes"),
    [
        ("127.0.0.1:8501", True),
        ("localhost", True),
        ("[::1]:8501", True),
        ("elsewhere.example", False),
        ("127.0.0.1.elsewhere.example:8501", False),
        ("", False),
    ],
)
def test_only_this_machine_by_its_own_name_is_answered(host: str, passes: bool) -> None:
    seen: dict[str, Any] = {}

    def application(_environ: Any, start: Any) -> list[bytes]:
        start("200 OK", [("Content-Type", "text/plain")])
        return [b"inside"]

    def start(code: str, headers: list[tuple[str, str]], _exc_info: Any = None) -> Any:
        seen.update(headers, code=code)

    answer = b"".join(Guard(application, ["'sha256-x'"])({"HTTP_HOST": host}, start))
    assert (answer == b"inside") is passes
    assert seen["code"].startswith("200" if passes else "421")
    assert "script-src 'self' 'sha256-x';" in seen["Content-Security-Policy"]
