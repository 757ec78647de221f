"""The first higher and lower price against a plain search."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from spark_jobs.compute.first_passage import NONE_YET, first_higher


@given(st.lists(st.tuples(st.integers(1, 9_000), st.integers(1, 6)), max_size=60))
def test_first_higher_and_lower(steps: list[tuple[int, int]]) -> None:
    times = np.cumsum([gap for gap, _ in steps], dtype=np.int64)
    prices = np.array([price for _, price in steps], dtype=np.int64)
    for sign in (1, -1):
        waits = first_higher(times, sign * prices, 20_000).tolist()
        for i, wait in enumerate(waits):
            hits = [
                int(times[j] - times[i])
                for j in range(i + 1, len(times))
                if times[j] - times[i] <= 20_000 and sign * prices[j] > sign * prices[i]
            ]
            assert wait == (hits[0] if hits else NONE_YET)
