"""The window statistics against exact rational arithmetic, and their independence of how ticks arrive."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from spark_jobs.compute.sliding import Statistics, advance, empty_index
from tickhouse.contract.names import PRICE_SCALE, WINDOWS


class DictChunks(dict[int, bytes]):
    """Chunks in memory that count how often they are touched."""

    loads = 0

    def load(self, minute: int) -> bytes:
        self.loads += 1
        return self[minute]

    def store(self, minute: int, chunk: bytes) -> None:
        self[minute] = chunk

    def remove(self, minute: int) -> None:
        del self[minute]


def run(timestamps: list[int], prices: list[int], cuts: list[int]) -> Statistics:
    """Feed ticks in the pieces that `cuts` make and put the results together."""
    index, chunks = empty_index(), DictChunks()
    parts = []
    edges = sorted({0, len(timestamps), *(cut % (len(timestamps) + 1) for cut in cuts)})
    for begin, end in itertools.pairwise(edges):
        index, part = advance(
            index, chunks, np.array(timestamps[begin:end]), np.array(prices[begin:end], dtype=np.int64)
        )
        parts.append(part)
        assert set(chunks) == set(index["minute"].tolist())
    return Statistics(*(np.concatenate(arrays, axis=1) for arrays in zip(*parts, strict=True)))


def check_exact(timestamps: list[int], prices: list[int], result: Statistics) -> None:
    for row, length in enumerate(WINDOWS.values()):
        for position, now in enumerate(timestamps):
            inside = [
                Fraction(price, PRICE_SCALE)
                for time, price in zip(timestamps, prices, strict=True)
                if now - length < time <= now
            ]
            count = len(inside)
            assert result.counts[row, position] == count
            mean = sum(inside) / count
            assert math.isclose(result.averages[row, position], mean, rel_tol=4e-16)
            deviation = result.deviations[row, position]
            if count < 2:
                assert math.isnan(deviation)
                continue
            variance = sum((price - mean) ** 2 for price in inside) / (count - 1)
            if variance == 0:
                assert deviation == 0.0
            else:
                assert math.isclose(Fraction(float(deviation)) ** 2, variance, rel_tol=1e-14)


price_families = st.one_of(
    st.integers(1, 10**18 - 1),
    st.integers(6_100_000, 6_300_000).map(lambda cents: cents * 10**6),
    st.sampled_from([1, 10**18 - 1]),
    st.integers(10**10 - 50, 10**10 + 50),
)


@st.composite
def streams(draw: st.DrawFn) -> tuple[list[int], list[int], list[int]]:
    family = draw(st.sampled_from([price_families, st.integers(6_180_000, 6_182_000).map(lambda c: c * 10**6)]))
    gaps = draw(
        st.lists(st.sampled_from([1, 100, 29_900, 30_000, 59_999, 60_000, 900_000, 3_599_999, 3_600_000]), max_size=40)
    )
    start = draw(st.integers(-(10**12), 2 * 10**12))
    timestamps = [start]
    for gap in gaps:
        timestamps.append(timestamps[-1] + gap)
    prices = draw(st.lists(family, min_size=len(timestamps), max_size=len(timestamps)))
    return timestamps, prices, draw(st.lists(st.integers(0, 50), max_size=5))


@given(streams())
@settings(max_examples=150, deadline=None)
def test_statistics_are_exact_for_any_prices_and_any_cut(stream: tuple[list[int], list[int], list[int]]) -> None:
    timestamps, prices, cuts = stream
    result = run(timestamps, prices, cuts)
    check_exact(timestamps, prices, result)
    whole = run(timestamps, prices, [])
    for one, other in zip(result, whole, strict=True):
        assert one.tobytes() == other.tobytes(), "the cut into batches changed a bit"


def test_narrow_and_wide_arithmetic_round_alike() -> None:
    """The same window computed with and without a far outlier, which forces the wide path, next to it."""
    rng = np.random.default_rng(5)
    timestamps = np.arange(2_000) * 100 + 10**12
    prices = (6_180_000 + rng.integers(-500, 500, 2_000)) * 10**6
    _, narrow = advance(empty_index(), DictChunks(), timestamps, prices)
    outlier_first = np.concatenate(([timestamps[0] - 300_000], timestamps))
    _, wide = advance(empty_index(), DictChunks(), outlier_first, np.concatenate(([10**18 - 1], prices)))
    for row in (0, 1):
        assert narrow.averages[row].tobytes() == wide.averages[row, 1:].tobytes()
        assert narrow.deviations[row].tobytes() == wide.deviations[row, 1:].tobytes()


def test_an_update_touches_only_the_chunks_at_the_edges() -> None:
    index, chunks = empty_index(), DictChunks()
    prices = np.full(600, 6_180_000 * 10**6)
    for minute in range(120):
        timestamps = np.arange(600) * 100 + minute * 60_000
        chunks.loads = 0
        for part in np.split(np.arange(600), 6):
            index, result = advance(index, chunks, timestamps[part], prices[part])
    assert chunks.loads <= 6 * 9
    assert len(chunks) <= 62
    assert result.counts[:, -1].tolist() == [300, 600, 3_000, 9_000, 18_000, 36_000]
    assert (result.deviations == 0.0).all()
