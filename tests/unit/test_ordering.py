"""The late and duplicate rule against a plain reading of it."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from spark_jobs.compute.ordering import BEFORE_ALL, admit


def plain(offered: list[int], lateness: int) -> list[str]:
    largest, seen, verdicts = BEFORE_ALL, set(), []
    for timestamp in offered:
        if timestamp < largest - lateness:
            verdicts.append("late")
        elif timestamp in seen:
            verdicts.append("duplicate")
        else:
            verdicts.append("fresh")
            seen.add(timestamp)
        largest = max(largest, timestamp)
    return verdicts


@given(st.lists(st.integers(0, 60), max_size=60), st.lists(st.integers(0, 60), max_size=4), st.integers(0, 20))
def test_admission_is_the_same_however_batches_are_cut(offered: list[int], cuts: list[int], lateness: int) -> None:
    edges = sorted({0, len(offered), *(cut % (len(offered) + 1) for cut in cuts)})
    known = np.zeros(0, dtype=np.int64)
    largest, verdicts, late, duplicates = BEFORE_ALL, [], 0, 0
    for begin, end in itertools.pairwise(edges):
        part = np.array(offered[begin:end], dtype=np.int64)
        admission = admit(part, known, largest, lateness)
        known = np.sort(np.concatenate((known, part[admission.fresh])))
        largest = admission.largest
        known = known[known >= largest - lateness]
        verdicts += admission.fresh.tolist()
        late += admission.late
        duplicates += admission.duplicates
    expected = plain(offered, lateness)
    assert verdicts == [verdict == "fresh" for verdict in expected]
    assert (late, duplicates) == (expected.count("late"), expected.count("duplicate"))
