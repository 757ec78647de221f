"""Judges a running system: every message, row and document against the exact results for what is on the input topic.

    python -m tests.reference.compare --bootstrap 127.0.0.1:9092 --lakehouse .tickhouse/lakehouse \
        --mongo mongodb://127.0.0.1:27017/

Exit code 0 = every result is there once and right, 1 = not, 2 = a part cannot be read. Each line of the table is one
output:
  expected    final results that are owed              found       what is there
  missing     owed, not there (in a readable form)      duplicate   there again, whatever the repetition says
  unexpected  there, not owed: not final, late, no tick wrong        there and owed, but not what it must be
Faults of a whole output (a schema, an index, a missing table) are listed below the table and fail it as well. Topics,
tables and collections must also agree with one another bit for bit.
"""

from __future__ import annotations

import argparse
import math
import struct
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.reference import readers
from tests.reference.acceptance import DAY_MS, UNITS_PER_PRICE, Tick, format_timestamp
from tests.reference.exact import average_is_right, deviation_is_right, zscore_is_right
from tests.reference.forms import (
    Scores,
    Stats,
    disorder,
    documents,
    has_columns,
    schema_faults,
    scores_value,
    seconds_value,
    stats_value,
    table_prices,
    table_rejects,
    table_results,
    topic_results,
)
from tests.reference.model import (
    INPUT_TOPIC,
    LATENESS_MS,
    WINDOW_NAMES,
    Expected,
    Key,
    Message,
    Reject,
    WindowStats,
    evaluate,
)
from tests.reference.report import Report, Tally, brief, tally
from tests.reference.snapshot import (
    COLLECTIONS,
    DATABASE,
    HIGHER_TOPIC,
    LOWER_TOPIC,
    MOVING_TOPIC,
    TABLES,
    ZSCORE_TOPIC,
    Collection,
    Snapshot,
    Table,
)
from tests.reference.stream import read_lines

_RETRY_SECONDS = 5.0


# --- values -----------------------------------------------------------------------------------------------------------


def judge_stats(owed: Sequence[WindowStats], value: Stats) -> str | None:
    """What is wrong with published statistics, or None."""
    for name, exact, (average, spread, count) in zip(WINDOW_NAMES, owed, value, strict=True):
        if count != exact.size:
            return f"{name}: count {count} must be {exact.size}"
        if not average_is_right(average, exact):
            return f"{name}: avg_price {average!r} must be {exact.total}e-8/{exact.size}"
        if not deviation_is_right(spread, exact):
            return f"{name}: std_price {spread!r} must be {_deviation_text(exact)}"
    return None


def _deviation_text(exact: WindowStats) -> str:
    if exact.size < 2:
        return "null"
    root = math.sqrt(exact.spread / (exact.size * (exact.size - 1))) / UNITS_PER_PRICE
    return f"about {root!r}" if root else "0.0"


def judge_scores(units: int, owed: Sequence[WindowStats], value: Scores) -> str | None:
    """What is wrong with published z-scores of a price in 1e-8, or None."""
    for name, exact, score in zip(WINDOW_NAMES, owed, value, strict=True):
        if not zscore_is_right(score, units, exact):
            return f"{name}: zscore_price {score!r} must be {_zscore_text(units, exact)}"
    return None


def _zscore_text(units: int, exact: WindowStats) -> str:
    if exact.spread == 0:
        return "null"
    square = exact.size * exact.spread / (exact.size - 1)
    return f"about {(exact.size * units - exact.total) / math.sqrt(square)!r}"


def judge_seconds(owed: int, value: float) -> str | None:
    """What is wrong with published seconds, owed in ms, or None."""
    return None if value == owed / 1000 else f"{value!r} must be {owed / 1000!r}"


def bits(value: Any) -> Any:
    """The value with every double as its eight bytes, so that equality is equality of bits."""
    if isinstance(value, float):
        return struct.pack("<d", value)
    if isinstance(value, tuple):
        return tuple(bits(one) for one in value)
    return value


@dataclass
class _Output:
    """How one kind of result looks everywhere it is stored."""

    topic: str
    table: str
    member: str
    read: Callable[[object], Any]
    owed: Mapping[Key, Any]
    judge: Callable[[Key, Any, Any], str | None]


def _outputs(expected: Expected) -> list[_Output]:
    def stats(_: Key, owed: Sequence[WindowStats], value: Stats) -> str | None:
        return judge_stats(owed, value)

    def scores(name: Key, owed: Sequence[WindowStats], value: Scores) -> str | None:
        return judge_scores(expected.units[name], owed, value)

    def seconds(_: Key, owed: int, value: float) -> str | None:
        return judge_seconds(owed, value)

    return [
        _Output(MOVING_TOPIC, "moving_stats", "stats", stats_value, expected.stats, stats),
        _Output(ZSCORE_TOPIC, "zscores", "z_scores", scores_value, expected.stats, scores),
        _Output(HIGHER_TOPIC, "higher", "higher_window", seconds_value, expected.higher, seconds),
        _Output(LOWER_TOPIC, "lower", "lower_window", seconds_value, expected.lower, seconds),
    ]


def _agreeing(
    published: Mapping[Key, Any], judge: Callable[[Key, Any, Any], str | None]
) -> Callable[[Key, Any, Any], str | None]:
    """A judge of a copy: right when it is right by itself and has the bits of what the topic says."""

    def judge_copy(name: Key, owed: Any, value: Any) -> str | None:
        if name in published and bits(value) != bits(published[name]):
            return f"{brief(value)} differs from the topic's {brief(published[name])}"
        return judge(name, owed, value)

    return judge_copy


def judge_price(owed: Tick, value: Tick) -> str | None:
    """What is wrong with a row of `prices`, or None."""
    return None if owed == value else f"{value} must be {owed}"


def judge_reject(owed: Reject, value: tuple[bytes | None, object, object, int]) -> str | None:
    """What is wrong with a row of `rejects`, or None. The product words its own reason; it must have one."""
    raw, reason, day, ingested_at = value
    if raw != owed.message.value:
        return f"raw is {brief(raw)}, must be {brief(owed.message.value)}"
    if not isinstance(reason, str) or not reason.strip():
        return f"reason is {reason!r}"
    days = {owed.message.timestamp // DAY_MS, ingested_at // 1000 // DAY_MS}
    return None if day in days else f"date is day {day} since the epoch, must be that of arrival: {sorted(days)}"


# --- everything -------------------------------------------------------------------------------------------------


def compare_snapshot(snapshot: Snapshot, lateness: int = LATENESS_MS, sent: Sequence[bytes] | None = None) -> Report:
    """The verdict on what was found. `lateness` in ms; `sent` = the lines that must be on the input topic."""
    expected = evaluate(snapshot.messages, lateness)
    report = Report([], _summary(expected), list(snapshot.faults), list(snapshot.notes))
    if not snapshot.messages:
        report.faults.append(f"{INPUT_TOPIC} has no message: there is nothing to compare with")
    if sent is not None:
        report.tallies.append(compare_input(snapshot.messages, sent))
    published: dict[str, dict[Key, Any]] = {}
    outputs = _outputs(expected)
    for output in outputs:
        records = snapshot.topics.get(output.topic)
        found = list(topic_results(records or [], output.member, output.read))
        published[output.topic] = {one.name: one.value for one in reversed(found) if one.fault is None}
        verdict = tally(f"topic {output.topic}", output.owed, found, output.judge)
        if records is None:
            verdict.faults.append("the topic does not exist")
        report.tallies.append(verdict)
    for topic in (MOVING_TOPIC, ZSCORE_TOPIC):
        late_published = disorder(snapshot.topics.get(topic, []))
        if late_published:
            report.notes.append(f"{topic}: {late_published} messages come after a later tick of their symbol")
    if snapshot.tables is not None:
        report.tallies.extend(_compare_tables(snapshot.tables, expected, outputs, published))
    if snapshot.collections is not None:
        report.tallies.extend(_compare_collections(snapshot.collections, expected, published[ZSCORE_TOPIC]))
    return report


def _compare_tables(
    tables: Mapping[str, Table], expected: Expected, outputs: Sequence[_Output], published: Mapping[str, dict[Key, Any]]
) -> Iterator[Tally]:
    def price(_: object, owed: Tick, value: Tick) -> str | None:
        return judge_price(owed, value)

    def reject(_: object, owed: Reject, value: tuple[bytes | None, object, object, int]) -> str | None:
        return judge_reject(owed, value)

    by_table = {output.table: output for output in outputs}
    for name in TABLES:
        label = f"delta {name}"
        table = tables.get(name)
        faults = ["the table does not exist"] if table is None else schema_faults(name, table)
        # Without the promised columns there is nothing to read: everything is missing.
        readable = table if table is not None and has_columns(name, table) else None
        if name == "prices":
            verdict = tally(label, expected.prices, table_prices(readable) if readable else (), price)
        elif name == "rejects":
            verdict = tally(label, expected.rejects, table_rejects(readable) if readable else (), reject)
        else:
            output = by_table[name]
            rows = table_results(readable, output.member, output.read) if readable else ()
            verdict = tally(label, output.owed, rows, _agreeing(published[output.topic], output.judge))
        verdict.faults.extend(faults)
        yield verdict


def _compare_collections(
    collections: Mapping[str, Collection], expected: Expected, published: Mapping[Key, Scores]
) -> Iterator[Tally]:
    for position, window in enumerate(WINDOW_NAMES):
        scores = {name: value[position] for name, value in published.items()}

        def judge(name: Key, owed: Sequence[WindowStats], value: float | None, position: int = position) -> str | None:
            if zscore_is_right(value, expected.units[name], owed[position]):
                return None
            return f"zscore_price {value!r} must be {_zscore_text(expected.units[name], owed[position])}"

        collection = collections.get(window)
        found = documents(collection, window) if collection else ()
        verdict = tally(f"mongo {COLLECTIONS[window]}", expected.stats, found, _agreeing(scores, judge))
        if collection is None:
            verdict.faults.append(f"the collection does not exist in database {DATABASE}")
        elif [("symbol", 1), ("timestamp", 1)] not in collection.indexes:
            verdict.faults.append(f"index (symbol, timestamp) is missing, there are {collection.indexes}")
        yield verdict


def compare_input(messages: Sequence[Message], sent: Sequence[bytes | None]) -> Tally:
    """Whether exactly these lines are on the input topic, each as often as in the file, in file order per partition."""
    places: dict[bytes | None, list[int]] = {}
    for index, line in enumerate(sent):
        places.setdefault(line, []).append(index)
    verdict = Tally(f"topic {INPUT_TOPIC} (as sent)", len(sent), len(messages))
    last: dict[int, int] = {}
    used: dict[bytes | None, int] = {}
    for message in sorted(messages):
        where = f"partition {message.partition} offset {message.offset}: {brief(message.value)}"
        lines = places.get(message.value)
        if lines is None:
            verdict.note("unexpected", where)
            continue
        used[message.value] = used.get(message.value, 0) + 1
        if used[message.value] > len(lines):
            verdict.note("duplicate", where)
            continue
        following = next((line for line in lines if line > last.get(message.partition, -1)), None)
        if following is None:
            verdict.note("wrong", f"{where}: line {lines[0] + 1} comes after line {last[message.partition] + 1}")
        else:
            last[message.partition] = following
    for value, indexes in places.items():
        for index in indexes[used.get(value, 0) :]:
            verdict.note("missing", f"line {index + 1}: {brief(value)}")
    return verdict


def _summary(expected: Expected) -> list[str]:
    valid, rejects = len(expected.prices), len(expected.rejects)
    lines = [
        f"{expected.messages} messages = {valid} valid + {rejects} rejects; of the valid "
        f"{len(expected.units)} distinct on time, {expected.late} late, {expected.duplicates} duplicates"
    ]
    for symbol, count in sorted(expected.symbols.items()):
        largest = "none" if count.largest is None else format_timestamp(count.largest)
        lines.append(
            f"  {symbol:<16}{len(count.on_time):>8} distinct{count.late:>7} late{count.duplicates:>7} duplicates"
            f"  largest timestamp {largest}"
        )
    return lines


def compare_everything(
    bootstrap: str,
    lakehouse: str | None,
    mongo: str | None,
    *,
    lateness: int = LATENESS_MS,
    sent: Path | None = None,
    wait: float = 0,
) -> Report:
    """Reads a running system and judges it; None for `lakehouse` or `mongo` leaves that part out.

    `lateness` in ms. `sent`: JSON lines file whose lines must be on the input topic. `wait`: as long as something is
    not right, read and judge again, for up to so many seconds: for a system that is still catching up.
    """
    lines = None if sent is None else read_lines(sent)
    end = time.monotonic() + wait
    while True:
        report = compare_snapshot(readers.read_system(bootstrap, lakehouse, mongo), lateness, lines)
        if report.ok or time.monotonic() + _RETRY_SECONDS > end:
            return report
        time.sleep(_RETRY_SECONDS)


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the report; 1 when anything is not right, 2 when the system cannot be read."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.reference.compare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--bootstrap", required=True, help="Kafka bootstrap servers")
    parser.add_argument("--lakehouse", help="folder or URI of the Delta tables")
    parser.add_argument("--mongo", help="MongoDB URI")
    parser.add_argument("--skip", choices=("delta", "mongo"), action="append", default=[], help="leave this part out")
    parser.add_argument("--lateness", type=float, default=LATENESS_MS / 1000, help="seconds (default 10)")
    parser.add_argument("--sent", type=Path, help="JSON lines file whose lines must be on the input topic")
    parser.add_argument("--wait", type=float, default=0, help="seconds to keep trying until everything is right")
    options = parser.parse_args(arguments)
    for part, given in (("delta", options.lakehouse), ("mongo", options.mongo)):
        if (given is None) != (part in options.skip):
            parser.error(f"give either --{'lakehouse' if part == 'delta' else part} or --skip {part}")
    try:
        report = compare_everything(
            options.bootstrap,
            options.lakehouse,
            options.mongo,
            lateness=round(options.lateness * 1000),
            sent=options.sent,
            wait=options.wait,
        )
    except readers.UNREADABLE as error:
        print(f"cannot be read: {error}", file=sys.stderr)
        return 2
    print(report.text())
    return 0 if report.ok else 1


if __name__ == "__main__":
    sys.exit(main())
