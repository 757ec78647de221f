"""Which ticks of one symbol are on time, late or duplicates: the per-symbol watermark as pure functions.

Belongs here: the rule on arrays. Does not belong here: what is computed from the ticks, or where state is kept.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from spark_jobs.contract import Integers

BEFORE_ALL = -(2**62)
"""The largest timestamp of a symbol that has had no tick yet."""


class Admission(NamedTuple):
    """What became of n offered ticks."""

    fresh: npt.NDArray[np.bool_]
    """Shape (n,): on time and the first of their identity."""
    late: int
    duplicates: int
    largest: int
    """The symbol's largest timestamp after them, in milliseconds."""


def admit(offered: Integers, known: Integers, largest: int, lateness_ms: int) -> Admission:
    """Judge ticks in offset order.

    `offered` are their timestamps; `known` the timestamps of earlier on-time ticks, at least all from
    `largest - lateness_ms` on; `largest` the largest timestamp before them; all in milliseconds.
    A tick is late when it lies more than the lateness below the largest before it; a late one that repeats an
    identity counts as late.
    """
    reach = np.maximum.accumulate(np.concatenate((np.array([largest], dtype=np.int64), offered)))
    on_time = offered >= reach[:-1] - lateness_ms
    fresh = np.zeros(len(offered), dtype=bool)
    candidates = np.flatnonzero(on_time)
    _, first = np.unique(offered[candidates], return_index=True)
    fresh[candidates[first]] = True
    fresh &= ~np.isin(offered, known)
    on_time_count = int(on_time.sum())
    return Admission(fresh, len(offered) - on_time_count, on_time_count - int(fresh.sum()), int(reach[-1]))
