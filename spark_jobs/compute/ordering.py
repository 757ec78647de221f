"""Which ticks of one symbol are on time, late or duplicates, and when they are final: the per-symbol watermark."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tickhouse.contract.arrays import Integers

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

    `offered` are their timestamps; `known` the timestamps of earlier on-time ticks, increasing, at least all from
    `largest - lateness_ms` on; `largest` the largest timestamp before them; all in milliseconds.
    A tick is late when it lies more than the lateness below the largest before it; a late one that repeats an
    identity counts as late.
    """
    reach = np.maximum.accumulate(np.concatenate((np.array([largest], dtype=np.int64), offered)))
    on_time = offered >= reach[:-1] - lateness_ms
    # In time order, and in offset order where times are equal: the first of its kind counts, unless it is known.
    order = np.flatnonzero(on_time)
    order = order[np.argsort(offered[order], kind="stable")]
    times = offered[order]
    counts = np.ones(len(times), dtype=bool)
    counts[1:] = times[1:] != times[:-1]
    if len(known):
        counts &= known[np.minimum(np.searchsorted(known, times), len(known) - 1)] != times
    fresh = np.zeros(len(offered), dtype=bool)
    fresh[order[counts]] = True
    on_time_count = int(on_time.sum())
    return Admission(fresh, len(offered) - on_time_count, on_time_count - int(fresh.sum()), int(reach[-1]))


class Buffer(NamedTuple):
    """One symbol's on-time ticks that are not final yet, and at most one that is: the one just at the watermark.

    The watermark is `largest` minus the lateness. A tick may still come at the watermark itself, so the identity of
    a final tick there has to be remembered.
    """

    largest: int
    """The symbol's largest timestamp so far, in milliseconds."""
    released: int
    """The timestamp of the latest final tick, in milliseconds."""
    timestamps: Integers
    """Shape (n,), increasing, none below the watermark."""
    prices: Integers
    """Shape (n,), in 1e-8 units."""

    def to_bytes(self) -> bytes:
        """For keeping in state."""
        return np.concatenate(([self.largest, self.released], self.timestamps, self.prices)).astype("<i8").tobytes()

    @classmethod
    def from_bytes(cls, state: bytes) -> Buffer:
        """What `to_bytes` gave."""
        values = np.frombuffer(state, dtype="<i8")
        count = (len(values) - 2) // 2
        return cls(int(values[0]), int(values[1]), values[2 : 2 + count], values[2 + count :])


EMPTY_BUFFER = Buffer(BEFORE_ALL, BEFORE_ALL, np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))


class Release(NamedTuple):
    """What offered ticks brought about."""

    buffer: Buffer
    timestamps: Integers
    """The ticks that have become final, in time order: their timestamps, shape (n,)."""
    prices: Integers
    """Their prices in 1e-8 units, shape (n,)."""
    fresh: npt.NDArray[np.bool_]
    """Which of the offered ticks count: shape (offered,)."""
    late: int
    duplicates: int


def release(buffer: Buffer, timestamps: Integers, prices: Integers, lateness_ms: int) -> Release:
    """Take ticks in offset order (`timestamps` in milliseconds, `prices` in 1e-8 units, both of shape (n,)).

    A tick is final when no tick that is still on time can come before it: once the largest timestamp is at least
    its own plus the lateness.
    """
    admission = admit(timestamps, buffer.timestamps, buffer.largest, lateness_ms)
    watermark = admission.largest - lateness_ms
    all_timestamps = np.concatenate((buffer.timestamps, timestamps[admission.fresh]))
    all_prices = np.concatenate((buffer.prices, prices[admission.fresh]))
    order = np.argsort(all_timestamps, kind="stable")
    all_timestamps, all_prices = all_timestamps[order], all_prices[order]
    begin = int(np.searchsorted(all_timestamps, buffer.released, side="right"))
    end = int(np.searchsorted(all_timestamps, watermark, side="right"))
    kept = int(np.searchsorted(all_timestamps, watermark, side="left"))
    final = all_timestamps[begin:end]
    released = int(final[-1]) if len(final) else buffer.released
    return Release(
        Buffer(admission.largest, released, all_timestamps[kept:], all_prices[kept:]),
        final,
        all_prices[begin:end],
        admission.fresh,
        admission.late,
        admission.duplicates,
    )
