"""The batch recomputation against the streams' own operators, to the last bit, and the independent reference."""

from __future__ import annotations

import itertools
from random import Random

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestration.recompute.expected_rows import RESULT_TABLES, complete_until, pieces
from orchestration.recompute.result_rows import Rows, compare, joined, stored_rows, to_arrow
from spark_jobs.compute import recompute
from spark_jobs.compute.recompute import Ticks, distinct, on_time
from tests.operators_without_spark import Published, publish, table_rows
from tests.reference.exact import average_is_right, deviation_is_right, zscore_is_right
from tests.reference.model import HORIZON_MS, LATENESS_MS, evaluate, keyed
from tests.reference.stream import generate
from tickhouse.contract.arrays import Integers, timestamp_texts
from tickhouse.contract.names import PRICE_SCALE, price_text

DAY = 1_746_662_400_000  # 2025-05-08T00:00:00Z
SYMBOL = "BTCUSDT"

steps = st.lists(
    st.tuples(
        st.one_of(st.integers(-25_000, 9_000), st.sampled_from([0, 100, -10_000, -10_001, 20_000, 1_800_000])),
        st.integers(1, 5),
    ),
    min_size=1,
    max_size=80,
)
sizes = st.lists(st.integers(1, 30), min_size=1, max_size=6)


def ticks_of(moves: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Timestamps that go forward and back, and prices, in offset order."""
    reached, ticks = DAY + 86_000_000, []
    for step, price in moves:
        ticks.append((reached + step, price * PRICE_SCALE + 1))
        reached = max(reached, reached + step)
    return ticks


def values_of(ticks: list[tuple[int, int]], symbol: str = SYMBOL) -> list[tuple[int, bytes]]:
    times = timestamp_texts(np.array([time for time, _ in ticks]))
    return [
        (time, f'{{"symbol":"{symbol}","price":{price_text(price)},"timestamp":"{text}"}}'.encode())
        for text, (time, price) in zip(times, ticks, strict=True)
    ]


def arrays(ticks: list[tuple[int, int]]) -> tuple[Integers, Integers]:
    return np.array([time for time, _ in ticks]), np.array([price for _, price in ticks])


def all_pieces(table: str, ticks: Ticks, after: int, until: int) -> Rows:
    found = list(pieces(table, ticks, after, until))
    assert [piece.after for piece in found] == [after, *(piece.until for piece in found[:-1])]
    assert not found or found[-1].until == until
    return joined([piece.rows for piece in found], table)


def within(rows: Rows, after: int, until: int) -> Rows:
    return rows.take((rows.times > after * 1_000) & (rows.times <= until * 1_000))


def published_rows(published: Published, table: str, count: int | None = None) -> Rows:
    return stored_rows(table, table_rows(table, published[table][:count]))


@settings(max_examples=150, deadline=None)
@given(steps, sizes, sizes, st.randoms())
def test_it_is_what_the_streams_have_stored_wherever_they_and_the_prices_are(
    moves: list[tuple[int, int]], batches: list[int], pace: list[int], random: Random
) -> None:
    ticks = ticks_of(moves)
    published = publish(values_of(ticks), LATENESS_MS, batches, pace)
    # Every table holds another part of its topic.
    known = ticks[: random.randint(1, len(ticks))]
    counted = on_time(*arrays(known), LATENESS_MS)
    for table in RESULT_TABLES:
        stored = published_rows(published, table, random.randint(0, len(published[table])))
        if not len(stored.times):
            continue
        newest = int(stored.times[-1]) // 1_000
        until = complete_until(table, max(time for time, _ in known), newest, LATENESS_MS)
        after = until - random.choice([1_000, 60_000, 5_000_000])
        expected = all_pieces(table, counted, after, until)
        assert compare(expected, within(stored, after, until)).total == 0


@settings(max_examples=60, deadline=None)
@given(steps, st.integers(1, 40), st.integers(-30_000, 4_000_000), st.integers(1, 400_000))
def test_a_stretch_needs_only_its_own_ticks_and_the_hour_before(
    moves: list[tuple[int, int]], at_once: int, start: int, length: int
) -> None:
    ticks = ticks_of(moves)
    after, until = ticks[0][0] + start, ticks[0][0] + start + length
    timestamps, prices = arrays(ticks)
    reach = (timestamps > after - recompute.WARM_UP_MS) & (timestamps <= until + HORIZON_MS + LATENESS_MS)
    for rule in (distinct, lambda times, units: on_time(times, units, LATENESS_MS)):
        whole = rule(timestamps, prices)
        # Whoever is left out beyond the stretch may still have made others late: that is for the reader to tell.
        later = timestamps > until + HORIZON_MS + LATENESS_MS
        first_later = int(np.argmax(later)) if later.any() else len(later)
        part = rule(timestamps[reach], prices[reach])
        if rule is not distinct:
            reach_then = reach & (np.arange(len(reach)) < first_later)
            part = rule(timestamps[reach_then], prices[reach_then])
        for table in RESULT_TABLES:
            expected = within(all_pieces(table, whole, ticks[0][0] - 10**8, until), after, until)
            with pytest.MonkeyPatch.context() as patched:
                patched.setattr(recompute, "TICKS_AT_ONCE", at_once)
                assert compare(all_pieces(table, part, after, until), expected).total == 0


@pytest.mark.parametrize("seed", [3, 8])
def test_it_is_what_the_independent_reference_says(seed: int) -> None:
    lines = [line.value for line in generate(seed, ["BTCUSDT", "SHIBUSDT"], 1_500, gaps=4)]
    now = 2 * 10**12
    messages = [keyed(0, offset, now, line) for offset, line in enumerate(lines)]
    expected = evaluate(messages)
    for symbol, count in expected.symbols.items():
        of_symbol = [tick for tick in expected.prices.values() if tick.symbol == symbol]
        ticks = on_time(
            np.array([tick.timestamp for tick in of_symbol]), np.array([tick.units for tick in of_symbol]), LATENESS_MS
        )
        assert dict(zip(ticks.timestamps.tolist(), ticks.prices.tolist(), strict=True)) == {
            tick.timestamp: tick.units for tick in count.on_time
        }
        assert count.largest is not None
        watermark, first = count.largest - LATENESS_MS, int(ticks.timestamps[0]) - 1
        judged = set()
        for scored in recompute.scored(ticks, first, watermark):
            counts, averages, deviations = scored.statistics
            for at, timestamp in enumerate(scored.timestamps.tolist()):
                judged.add((symbol, timestamp))
                for row, window in enumerate(expected.stats[symbol, timestamp]):
                    deviation, score = (
                        None if np.isnan(value) else float(value)
                        for value in (deviations[row, at], scored.z_scores[row, at])
                    )
                    assert counts[row, at] == window.size
                    assert average_is_right(float(averages[row, at]), window)
                    assert deviation_is_right(deviation, window)
                    assert zscore_is_right(score, expected.units[symbol, timestamp], window)
        assert judged == {key for key in expected.stats if key[0] == symbol}
        found = recompute.waits(ticks, first, count.largest, watermark)
        for answers, owed in ((found.higher, expected.higher), (found.lower, expected.lower)):
            given_answers = zip(answers.timestamps.tolist(), answers.waits.tolist(), strict=True)
            assert {(symbol, time): wait for time, wait in given_answers} == {
                key: wait for key, wait in owed.items() if key[0] == symbol
            }


def test_late_ticks_count_when_they_are_included_and_the_first_of_an_identity_does() -> None:
    timestamps, prices = np.array([50_000, 20_000, 50_000, 20_000, 60_000]), np.array([1, 2, 3, 4, 5])
    assert [values.tolist() for values in distinct(timestamps, prices)] == [[20_000, 50_000, 60_000], [2, 1, 5]]
    assert [values.tolist() for values in on_time(timestamps, prices, 10_000)] == [[50_000, 60_000], [1, 5]]


@settings(max_examples=30, deadline=None)
@given(steps)
def test_what_is_written_reads_back_bit_for_bit(moves: list[tuple[int, int]]) -> None:
    ticks = distinct(*arrays(ticks_of(moves)))
    after, until = int(ticks.timestamps[0]) - 1, int(ticks.timestamps[-1])
    for table in RESULT_TABLES:
        rows = all_pieces(table, ticks, after, until)
        batch = to_arrow(table, SYMBOL, rows)
        assert batch.schema == table_rows(table, []).schema
        for part in (slice(0, len(batch)), slice(1, len(batch) - 1)):
            positions = np.arange(len(batch))[part]
            back = stored_rows(table, pa.Table.from_batches([batch]).slice(part.start, len(positions)))
            assert compare(rows.take(positions), back).total == 0


def test_every_way_to_differ_is_told() -> None:
    ticks = ticks_of([(100, price) for price in (1, 2, 1, 3, 2)])
    rows = all_pieces("moving_stats", distinct(*arrays(ticks)), ticks[0][0] - 1, ticks[-1][0])
    for position, row in itertools.product(range(len(rows.bits)), range(5)):
        bits = rows.bits.copy()
        bits[position, row] += 1
        assert compare(rows, Rows(rows.times, bits)).differing.tolist() == [rows.times[row]]
    kept = np.array([0, 1, 1, 3, 4])
    assert [times.tolist() for times in compare(rows, rows.take(kept))] == [[rows.times[2]], [], [rows.times[1]], []]
    assert compare(rows.take(kept[:2]), rows).unexpected.tolist() == rows.times[2:].tolist()
