"""Which results are there already: found in messages, kept, and left out."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from spark_jobs.sinks.existing_results import Survey, _timestamps, add, lacking
from tickhouse.contract.encoding import form_messages, pack_results
from tickhouse.contract.names import HIGHER_TOPIC

LATENESS = 10_000
TIMES = np.array([1_746_677_558_300, 1_746_677_558_400])


def packed(times: list[int]) -> bytes:
    return pack_results(np.array(times), np.ones(len(times), dtype=np.int64))


def test_results_are_found_among_whatever_a_topic_holds() -> None:
    _, good = form_messages(HIGHER_TOPIC, [("日本-USD_1.", packed(TIMES.tolist())), ("A", packed([0]))])
    found = dict(_timestamps(pa.array([*good, b"x", b"\xff{", None, b'{"timestamp":1}'], pa.binary())))
    assert {symbol: times.tolist() for symbol, times in found.items()} == {"日本-USD_1.": TIMES.tolist(), "A": [0]}


def test_all_long_before_the_newest_count_as_there() -> None:
    minute = 60_000
    held = add(None, np.array([0, 9 * minute, 10 * minute]), LATENESS)
    held = add(held, np.array([9 * minute + 1, 10 * minute]), LATENESS)
    assert held.later.tolist() == [9 * minute, 9 * minute + 1, 10 * minute]
    assert held.complete == 10 * minute - LATENESS - 20_000 - 120_000
    offered = np.array([0, 5 * minute, 9 * minute, 9 * minute + 2, 10 * minute, 11 * minute])
    assert offered[held.lacks(offered)].tolist() == [9 * minute + 2, 11 * minute]


def test_what_is_there_is_left_out_of_packed_results() -> None:
    existing = {"A": add(None, np.array([1, 2]), LATENESS), "B": add(None, np.array([1]), LATENESS)}
    offered = [("A", packed([1, 2, 3])), ("B", packed([1])), ("C", packed([1]))]
    assert list(lacking(existing, offered, 2)) == [("A", packed([3])), ("C", packed([1]))]


def test_a_survey_is_kept() -> None:
    made = Survey({HIGHER_TOPIC: {"A": add(None, TIMES, LATENESS)}}, {HIGHER_TOPIC: {0: 2, 1: 0}})
    read = Survey.from_json(made.to_json())
    assert read.ends == made.ends
    assert read.existing[HIGHER_TOPIC]["A"].later.tolist() == TIMES.tolist()
    assert read.existing[HIGHER_TOPIC]["A"].complete == made.existing[HIGHER_TOPIC]["A"].complete
