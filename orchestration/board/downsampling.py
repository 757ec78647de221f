"""Which of many rows are drawn: a chart of 36,000 points looks as one of the right 1,000 does, and is slower.

Pure: no I/O.
"""

from __future__ import annotations

import numpy as np

from orchestration.board.rows import Rows

STRETCHES = 300
"""Into so many stretches of equal length the time shown is cut."""


def extremes(rows: Rows, start: int, end: int, stretches: int = STRETCHES) -> Rows:
    """The first, lowest, highest and last row of each stretch between `start` and `end` (milliseconds), and each null.

    By the first number of each row. What is drawn through these rows has every peak of what is drawn through all.
    """
    if len(rows.times) <= 4 * stretches:
        return rows
    numbers = rows.values[0]
    known = ~np.isnan(numbers)
    stretch = _stretch_of(rows, start, end, stretches)
    order = np.lexsort((numbers, stretch))[: len(numbers)]
    order = order[known[order]]
    wanted = np.zeros(len(numbers), dtype=bool)
    for positions in (np.arange(len(numbers)), order):
        if len(positions):
            begins = np.flatnonzero(np.diff(stretch[positions], prepend=-1))
            wanted[positions[begins]] = True
            wanted[positions[np.append(begins[1:], len(positions)) - 1]] = True
    # Of a run of nulls its first is enough for a gap in the line.
    wanted |= ~known & np.append(True, known[:-1])
    return Rows(rows.times[wanted], rows.values[:, wanted])


def last_of_each(rows: Rows, start: int, end: int, stretches: int = STRETCHES) -> Rows:
    """The last row of each stretch between `start` and `end` (milliseconds)."""
    if len(rows.times) <= stretches:
        return rows
    stretch = _stretch_of(rows, start, end, stretches)
    wanted = np.append(np.diff(stretch) != 0, True)
    return Rows(rows.times[wanted], rows.values[:, wanted])


def _stretch_of(rows: Rows, start: int, end: int, stretches: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    length = max(1, -(-(end - start) // stretches))
    return (rows.times - start) // length
