"""The worked example of docs/concepts.md, by the reference and by the product's own functions."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from orchestration.settings import PROJECT_ROOT
from spark_jobs.compute.ordering import BEFORE_ALL, admit
from spark_jobs.compute.sliding import advance, empty_index
from tests.reference.ideal import average, deviation, zscore
from tests.reference.model import LATENESS_MS, evaluate, keyed

DAY = "2025-05-08T"
UNITS = 10**8


def tables() -> Iterator[list[list[str]]]:
    """The rows of each table of the section "An example", the heads left out."""
    text = (PROJECT_ROOT / "docs" / "concepts.md").read_text().partition("## An example")[2].partition("\n## ")[0]
    for table in re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE):
        yield [[cell.strip() for cell in line.strip(" |").split("|")] for line in table.splitlines()[2:]]


def milliseconds(time: str) -> int:
    hours, minutes, seconds = map(int, time.split(":"))
    return ((hours * 60 + minutes) * 60 + seconds) * 1_000


class _Chunks(dict[int, bytes]):
    """State in memory."""

    load, store = dict.__getitem__, dict.__setitem__

    def remove(self, minute: int) -> None:
        del self[minute]


def test_the_example() -> None:
    sent, results = tables()
    messages = [
        keyed(0, int(offset), 2**43, f'{{"symbol":"X","price":{price},"timestamp":"{DAY}{time}Z"}}'.encode())
        for offset, time, price, _ in sent
    ]
    expected = evaluate(messages)
    on_time = [(milliseconds(time), int(price) * UNITS) for _, time, price, is_ in sent if is_.startswith("on time")]
    assert [tick.units for tick in expected.symbols["X"].on_time] == [units for _, units in on_time]
    assert (expected.late, expected.duplicates) == (1, 1)

    offered = np.array([milliseconds(time) for _, time, _, _ in sent])
    admission = admit(offered, np.zeros(0, dtype=np.int64), BEFORE_ALL, LATENESS_MS)
    assert admission.fresh.tolist() == [is_.startswith("on time") for *_, is_ in sent]

    final = sorted(tick for tick in on_time if tick[0] <= max(on_time)[0] - LATENESS_MS)
    times, prices = (np.array(column, dtype=np.int64) for column in zip(*final, strict=True))
    _, statistics = advance(empty_index(), _Chunks(), times, prices)

    rows = []
    for position, (key, windows) in enumerate(expected.stats.items()):
        of_30s = windows[0]
        assert of_30s.size == statistics.counts[0][position]
        assert average(of_30s) == statistics.averages[0][position]
        seconds = [expected.higher[key] / 1_000, expected.lower[key] / 1_000]
        values = [average(of_30s), deviation(of_30s), zscore(expected.units[key], of_30s)]
        price = str(expected.units[key] // UNITS)
        rows.append([price, str(of_30s.size), *map(_shown, values), *map(str, seconds)])
    assert [row[1:] for row in results] == rows
    assert [milliseconds(row[0]) for row in results] == times.tolist()


def _shown(value: Any) -> str:
    return "null" if value is None else f"{value:.4f}"
