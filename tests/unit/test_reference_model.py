"""The reference's results against cases worked by hand and against a second, brute-force computation."""

from __future__ import annotations

import math
from decimal import Decimal, localcontext
from fractions import Fraction

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.reference.acceptance import UNITS_PER_PRICE, Tick
from tests.reference.exact import average_is_right, deviation_is_right, zscore_is_right
from tests.reference.ideal import average, deviation, zscore
from tests.reference.model import WINDOW_NAMES, WINDOWS, Expected, Key, WindowStats, evaluate, keyed
from tests.reference.spelling import canonical
from tests.reference.stream import START, generate

ARRIVAL = START + 10**10


def run(*ticks: tuple[int, int], lateness: int = 10_000, symbol: str = "A") -> Expected:
    """The results for ticks (ms after the start, price) in offset order."""
    values = [canonical(Tick(symbol, START + time, price * UNITS_PER_PRICE)) for time, price in ticks]
    return evaluate([keyed(0, offset, ARRIVAL, value) for offset, value in enumerate(values)], lateness)


def after(results: dict[Key, int]) -> dict[int, int]:
    """Results of symbol A by ms after the start."""
    return {time - START: result for (_, time), result in results.items()}


def sizes(expected: Expected, time: int) -> dict[str, int]:
    windows = expected.stats["A", START + time]
    return {name: one.size for name, one in zip(WINDOW_NAMES, windows, strict=True)}


# --- windows ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "length"), WINDOWS)
def test_a_window_leaves_out_its_left_edge_and_includes_the_tick(name: str, length: int) -> None:
    on_edge = run((0, 1), (length, 3), (length + 10_000, 9))
    assert sizes(on_edge, length)[name] == 1
    inside = run((1, 1), (length, 3), (length + 10_000, 9))
    assert sizes(inside, length)[name] == 2


def test_mean_and_deviation_by_hand() -> None:
    # 1, 2, 4: mean 7/3, sample variance ((4/3)² + (1/3)² + (5/3)²)/2 = 7/3; z of the 4 = (5/3)/√(7/3).
    expected = run((0, 1), (100, 2), (200, 4), (10_200, 9))
    windows = expected.stats["A", START + 200]
    assert windows == (WindowStats(3, 7 * 10**8, 14 * 10**16),) * 6
    assert average(windows[0]) == 7 / 3
    assert deviation(windows[0]) == math.sqrt(7 / 3)
    assert zscore(4 * 10**8, windows[0]) == pytest.approx(5 / 3 / math.sqrt(7 / 3), rel=1e-15)
    assert expected.stats["A", START][0] == WindowStats(1, 10**8, 0)


def test_statistics_look_back_only_and_include_what_came_out_of_order() -> None:
    expected = run((0, 1), (5_000, 5), (2_000, 3), (15_000, 9))
    assert [one.total for one in expected.stats["A", START + 2_000]] == [4 * 10**8] * 6
    assert [one.total for one in expected.stats["A", START + 5_000]] == [9 * 10**8] * 6


def test_a_flat_window_has_deviation_zero_and_no_zscore() -> None:
    stats = run((0, 7), (100, 7), (10_100, 8)).stats["A", START + 100][0]
    assert stats == WindowStats(2, 14 * 10**8, 0)
    assert deviation_is_right(0.0, stats)
    assert not deviation_is_right(-0.0, stats)
    assert not deviation_is_right(1e-300, stats)
    assert not deviation_is_right(None, stats)
    assert zscore_is_right(None, 7 * 10**8, stats)
    assert not zscore_is_right(0.0, 7 * 10**8, stats)


def test_a_single_tick_has_no_deviation() -> None:
    stats = WindowStats(1, 7 * 10**8, 0)
    assert deviation_is_right(None, stats)
    assert not deviation_is_right(0.0, stats)
    assert zscore_is_right(None, 7 * 10**8, stats)
    assert average_is_right(7.0, stats)


# --- lateness, duplicates, finality -----------------------------------------------------------------------------


def test_exactly_the_lateness_behind_is_on_time_and_one_more_is_late() -> None:
    expected = run((10_000, 1), (0, 2), (-1, 3))
    assert [tick.timestamp - START for tick in expected.symbols["A"].on_time] == [10_000, 0]
    assert (expected.late, expected.duplicates) == (1, 0)
    assert len(expected.prices) == 3


def test_the_lateness_can_be_chosen() -> None:
    assert run((1_000, 1), (0, 2), lateness=999).late == 1
    assert run((1_000, 1), (0, 2), lateness=1_000).late == 0
    assert after(run((0, 1), (500, 2), lateness=500).higher) == {}
    assert after(run((0, 1), (500, 2), (1_000, 2), lateness=500).higher) == {0: 500}


def test_the_first_of_two_with_one_identity_counts() -> None:
    expected = run((0, 1), (0, 5), (10_000, 9))
    assert expected.duplicates == 1
    assert expected.units["A", START] == 10**8
    assert expected.stats["A", START][0] == WindowStats(1, 10**8, 0)
    assert len(expected.prices) == 3


def test_a_late_repetition_is_late_and_no_duplicate() -> None:
    expected = run((0, 1), (10_001, 2), (0, 1), (0, 1))
    assert (expected.late, expected.duplicates) == (2, 0)
    repeated_late = run((10_001, 2), (0, 1), (0, 1))
    assert (repeated_late.late, repeated_late.duplicates) == (2, 0)
    assert ("A", START) not in repeated_late.units


def test_finer_digits_make_no_other_identity() -> None:
    def value(fraction: str) -> bytes:
        return f'{{"symbol":"A","price":1,"timestamp":"2025-05-08T12:00:00.{fraction}Z"}}'.encode()

    expected = evaluate([keyed(0, 0, ARRIVAL, value("3004")), keyed(0, 1, ARRIVAL, value("300999"))])
    assert expected.duplicates == 1


def test_offsets_decide_the_order_then_partitions() -> None:
    def value(time: int, price: int) -> bytes:
        return canonical(Tick("A", START + time, price * 10**8))

    messages = [
        keyed(1, 0, ARRIVAL, value(0, 2)),
        keyed(0, 1, ARRIVAL, value(0, 3)),
        keyed(0, 0, ARRIVAL, value(0, 1)),
    ]
    expected = evaluate(messages)
    assert expected.units == {("A", START): 10**8}
    assert expected.duplicates == 2
    # Without the one that is first in both: a lower offset on a higher partition comes first.
    assert evaluate(messages[:2]).units == {("A", START): 2 * 10**8}


def test_another_symbols_progress_changes_nothing() -> None:
    ticks = [("A", 0), ("B", 3_600_000), ("A", 100), ("B", 3_600_100)]
    messages = [keyed(0, at, ARRIVAL, canonical(Tick(s, START + t, 10**8))) for at, (s, t) in enumerate(ticks)]
    expected = evaluate(messages)
    assert expected.late == 0
    assert expected.stats == {}


def test_statistics_are_final_exactly_when_the_lateness_has_passed() -> None:
    assert ("A", START) not in run((0, 1), (9_999, 1)).stats
    assert ("A", START) in run((0, 1), (10_000, 1)).stats
    assert ("A", START) in run((0, 1), (10_000, 1), (5, 1)).stats


def test_a_late_tick_makes_nothing_final_and_counts_in_no_window() -> None:
    expected = run((0, 1), (20_000, 1), (9_999, 50), (30_000, 1))
    assert expected.late == 1
    assert set(after(expected.higher)) == {0}
    assert expected.stats["A", START + 20_000][0].size == 2


# --- first passage ----------------------------------------------------------------------------------------------


def test_a_hit_is_strictly_higher_or_lower() -> None:
    expected = run((0, 5), (100, 5), (200, 4), (300, 6), (40_000, 5))
    assert after(expected.higher) == {0: 300, 100: 200, 200: 100, 300: 20_000}
    assert after(expected.lower) == {0: 200, 100: 100, 200: 20_000, 300: 20_000}


def test_a_hit_at_exactly_twenty_seconds_counts_and_one_later_does_not() -> None:
    # Both read 20.0; what tells them apart is nothing but the reason, so look at one that could be 20.001.
    assert after(run((0, 1), (20_000, 2), (30_000, 2)).higher)[0] == 20_000
    assert after(run((0, 1), (20_001, 2), (30_001, 2)).higher)[0] == 20_000
    assert after(run((0, 1), (19_999, 2), (30_000, 2)).higher)[0] == 19_999


def test_no_hit_is_certain_only_after_twenty_seconds_and_the_lateness() -> None:
    assert after(run((0, 1), (29_999, 1)).higher) == {}
    assert after(run((0, 1), (30_000, 1)).higher) == {0: 20_000}


def test_a_hit_is_certain_once_the_lateness_after_it_has_passed() -> None:
    assert after(run((0, 1), (5_000, 2), (14_999, 2)).higher) == {}
    assert after(run((0, 1), (5_000, 2), (15_000, 2)).higher) == {0: 5_000}
    # An earlier hit may still come, out of order, right up to that moment.
    assert after(run((0, 1), (5_000, 2), (14_999, 2), (4_999, 2), (15_000, 2)).higher) == {0: 4_999}


# --- malformed messages -----------------------------------------------------------------------------------------


def test_every_message_is_a_price_or_a_reject() -> None:
    good = canonical(Tick("A", START, 10**8))
    expected = evaluate([keyed(2, 7, ARRIVAL, good), keyed(2, 8, ARRIVAL, None), keyed(3, 0, ARRIVAL, b"x")])
    assert expected.prices == {(2, 7): Tick("A", START, 10**8)}
    assert set(expected.rejects) == {(2, 8), (3, 0)}
    assert expected.rejects[2, 8].message.value is None
    assert all(reject.reason for reject in expected.rejects.values())


# --- brute force ------------------------------------------------------------------------------------------------


def brute_force(ticks: list[tuple[int, int]], lateness: int) -> dict[str, dict[int, object]]:
    """Straight from the definitions, every question asked of every tick; ticks = (time, units) in offset order."""
    on_time: dict[int, int] = {}
    late = duplicates = 0
    for index, (time, units) in enumerate(ticks):
        if any(time < earlier - lateness for earlier, _ in ticks[:index]):
            late += 1
        elif time in on_time:
            duplicates += 1
        else:
            on_time[time] = units
    largest = max((time for time, _ in ticks), default=0)
    stats: dict[int, object] = {}
    passages: dict[str, dict[int, object]] = {"higher": {}, "lower": {}}
    for time, units in on_time.items():
        if largest >= time + lateness:
            stats[time] = tuple(
                _statistics([Fraction(u) for t, u in on_time.items() if time - length < t <= time], Fraction(units))
                for _, length in WINDOWS
            )
        for name, sign in (("higher", 1), ("lower", -1)):
            hits = [t for t, u in on_time.items() if time < t <= time + 20_000 and sign * u > sign * units]
            decided = min(hits) if hits else time + 20_000
            if largest >= decided + lateness:
                passages[name][time] = decided - time
    return {"stats": stats, "counts": {0: (late, duplicates)}, **passages}


def _statistics(units: list[Fraction], own: Fraction) -> tuple[int, Fraction, Fraction | None, Fraction | None]:
    """(count, mean, variance, z²·sign) of the window's prices."""
    mean = sum(units, Fraction(0)) / len(units)
    if len(units) < 2:
        return len(units), mean, None, None
    variance = sum(((unit - mean) ** 2 for unit in units), Fraction(0)) / (len(units) - 1)
    square = (own - mean) * abs(own - mean) / variance if variance else None
    return len(units), mean, variance, square


def _as_statistics(units: int, stats: WindowStats) -> tuple[int, Fraction, Fraction | None, Fraction | None]:
    mean = Fraction(stats.total, stats.size)
    if stats.size < 2:
        return stats.size, mean, None, None
    variance = Fraction(stats.spread, stats.size * (stats.size - 1))
    return stats.size, mean, variance, (units - mean) * abs(units - mean) / variance if variance else None


TIMES = st.one_of(
    st.integers(0, 60_000),
    st.integers(0, 60).map(lambda seconds: seconds * 1_000),
    st.sampled_from([length + edge for _, length in WINDOWS for edge in (-1, 0, 1, 10_000)]),
)
TICKS = st.lists(st.tuples(TIMES, st.one_of(st.integers(1, 3), st.integers(1, 10**18 - 1))), max_size=40)


def _nearly_ordered(ticks: list[tuple[int, int]]) -> list[tuple[int, int]]:
    return sorted(ticks, key=lambda tick: tick[0] // 10_000)


@settings(max_examples=300, deadline=None)
@given(st.one_of(TICKS, TICKS.map(sorted), TICKS.map(_nearly_ordered)), st.sampled_from([10_000, 0, 1, 2_500]))
@example([], 10_000)
def test_the_model_agrees_with_brute_force(ticks: list[tuple[int, int]], lateness: int) -> None:
    values = [canonical(Tick("A", START + time, units)) for time, units in ticks]
    expected = evaluate([keyed(0, at, ARRIVAL, value) for at, value in enumerate(values)], lateness)
    truth = brute_force(ticks, lateness)
    assert {0: (expected.late, expected.duplicates)} == truth["counts"]
    assert after(expected.higher) == truth["higher"]
    assert after(expected.lower) == truth["lower"]
    assert {
        time - START: tuple(_as_statistics(expected.units[symbol, time], one) for one in windows)
        for (symbol, time), windows in expected.stats.items()
    } == truth["stats"]


def test_the_model_agrees_with_brute_force_on_a_generated_stream() -> None:
    lines = generate(seed=5, symbols=["A", "B"], ticks=600)
    expected = evaluate([keyed(0, at, ARRIVAL, line.value) for at, line in enumerate(lines)])
    assert expected.late > 0
    assert expected.duplicates > 0
    for symbol in ("A", "B"):
        mine = [tick for _, tick in sorted(expected.prices.items()) if tick.symbol == symbol]
        truth = brute_force([(tick.timestamp, tick.units) for tick in mine], 10_000)
        count = expected.symbols[symbol]
        assert (count.late, count.duplicates) == truth["counts"][0]
        assert {time: rise for (name, time), rise in expected.higher.items() if name == symbol} == truth["higher"]
        assert {time: rise for (name, time), rise in expected.lower.items() if name == symbol} == truth["lower"]
        assert {
            time: tuple(_as_statistics(expected.units[name, time], one) for one in windows)
            for (name, time), windows in expected.stats.items()
            if name == symbol
        } == truth["stats"]


# --- judging doubles --------------------------------------------------------------------------------------------

WINDOWS_OF_UNITS = st.lists(
    st.one_of(st.integers(1, 5), st.integers(10**18 - 5, 10**18 - 1), st.integers(1, 10**18 - 1)),
    min_size=1,
    max_size=8,
)


def _window(units: list[int]) -> WindowStats:
    total = sum(units)
    return WindowStats(len(units), total, len(units) * sum(u * u for u in units) - total * total)


def _decimal(number: Fraction) -> Decimal:
    return Decimal(number.numerator) / Decimal(number.denominator)


@given(WINDOWS_OF_UNITS, st.sampled_from([0, 0.5, 0.999999, 1.000001, 1.5, -0.5, -0.999999, -1.000001, -3]))
def test_the_tolerances_are_exact(units: list[int], share: float) -> None:
    """A value moved by `share` of what is allowed is right just when |share| ≤ 1, judged here in 120-digit decimals."""
    stats = _window(units)
    with localcontext() as context:
        context.prec = 120
        price = Decimal(UNITS_PER_PRICE)
        mean = _decimal(Fraction(stats.total, stats.size)) / price
        moved = Fraction(mean * (1 + Decimal(share) / 10**9))
        published = float(moved)
        truth = abs(Decimal(published) - mean) <= mean / 10**9
        assert average_is_right(published, stats) == truth
        if stats.spread == 0:
            return
        spread = _decimal(Fraction(stats.spread, stats.size * (stats.size - 1))).sqrt() / price
        published = float(spread * (1 + Decimal(share) / 10**9))
        assert deviation_is_right(published, stats) == (abs(Decimal(published) - spread) <= spread / 10**9)
        score = (Decimal(units[-1]) / price - mean) / spread
        allowed = abs(score) / 10**9 + 4 * Decimal(2) ** -53 * mean / spread
        published = float(score + allowed * Decimal(share))
        assert zscore_is_right(published, units[-1], stats) == (abs(Decimal(published) - score) <= allowed)


@given(WINDOWS_OF_UNITS)
def test_correctly_rounded_values_are_right(units: list[int]) -> None:
    stats = _window(units)
    assert average_is_right(average(stats), stats)
    assert deviation_is_right(deviation(stats), stats)
    assert zscore_is_right(zscore(units[-1], stats), units[-1], stats)


@pytest.mark.parametrize("published", [math.nan, math.inf, -math.inf, -1.0, 0.0])
def test_no_nonsense_is_right(published: float) -> None:
    stats = _window([100_000_000, 200_000_000])
    assert not average_is_right(published, stats)
    assert not deviation_is_right(published, stats)
    assert not zscore_is_right(published, 200_000_000, stats)
    assert not zscore_is_right(None, 200_000_000, stats)
    assert not deviation_is_right(None, stats)
