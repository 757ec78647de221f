"""Clocks that jump, ticks from the future, symbols that fall silent: the stateful jobs against the reference.

The real accept rule, packing and operators run as Spark runs them, on state kept in dictionaries, in micro-batches cut
anywhere. The reference judges what comes out.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, TypeVar, cast

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyspark.sql import Row
from pyspark.sql.streaming.stateful_processor import StatefulProcessorHandle

from spark_jobs.framing import decode_blobs
from spark_jobs.jobs.moving import MovingProcessor
from spark_jobs.jobs.symbol_processor import SymbolProcessor
from spark_jobs.jobs.trend import TrendProcessor
from spark_jobs.jobs.zscore import ZScoreProcessor
from spark_jobs.sources.packing import pack
from tests.reference.acceptance import Tick, milliseconds_of
from tests.reference.compare import compare_snapshot, judge_stats
from tests.reference.forms import stats_value, topic_results
from tests.reference.model import LATENESS_MS, Message, evaluate, keyed
from tests.reference.snapshot import Record, Snapshot
from tests.reference.spelling import canonical
from tickhouse.contract.encoding import form_messages
from tickhouse.contract.names import HIGHER_TOPIC, LOWER_TOPIC, MOVING_TOPIC, TICKS_TOPIC, ZSCORE_TOPIC
from tickhouse.kafka.range_reader import RECORD_SCHEMA

SECOND, MINUTE, HOUR, DAY = 1_000, 60_000, 3_600_000, 86_400_000
NOON = milliseconds_of("2025-05-08T12:00:00Z")
FIRST, LAST = milliseconds_of("1970-01-01T00:00:00Z"), milliseconds_of("2261-12-31T23:59:59.999Z")
MOST_CHUNKS = 62
"""An hour's minutes and the two at its edges."""


class Sent(NamedTuple):
    """One message on the price topic: its value, and its record's own timestamp in ms."""

    value: bytes
    record_timestamp: int


class DictState:
    """One state variable, and how often it is used."""

    def __init__(self) -> None:
        self.content: dict[Any, tuple[Any, ...]] = {}
        self.uses = 0

    def get(self) -> tuple[Any, ...] | None:
        return self.getValue(None)

    def update(self, value: tuple[Any, ...]) -> None:
        self.updateValue(None, value)

    def getValue(self, key: Any) -> tuple[Any, ...] | None:
        self.uses += 1
        return self.content.get(key)

    def updateValue(self, key: Any, value: tuple[Any, ...]) -> None:
        self.uses += 1
        self.content[key] = value

    def removeKey(self, key: Any) -> None:
        self.uses += 1
        del self.content[key]


class DictHandle:
    """A bucket's state, in which all symbols are."""

    def __init__(self) -> None:
        self.states: dict[str, DictState] = {}

    def getValueState(self, name: str, _: str) -> DictState:
        return self.states.setdefault(name, DictState())

    def getMapState(self, name: str, _: str, __: str) -> DictState:
        return self.states.setdefault(name, DictState())

    @property
    def uses(self) -> int:
        return sum(state.uses for state in self.states.values())

    @property
    def largest(self) -> int:
        return max(len(state.content) for state in self.states.values())


class Job:
    """One stateful job: micro-batches of records in, messages out."""

    def __init__(self, processor: type[SymbolProcessor], lateness: int, outputs: tuple[str, ...]) -> None:
        self._processor = processor(lateness)
        self._outputs = outputs
        self.handle = DictHandle()
        self.published: dict[str, list[Record]] = {topic: [] for topic in outputs}
        self.counts = dict.fromkeys(("late", "duplicates", "rejects"), 0)

    def run(self, batch: Iterable[pa.RecordBatch]) -> None:
        """Take in a micro-batch."""
        for row in [row for packed in pack(batch, buckets=1) for row in packed.to_pylist()]:
            self._processor.init(cast(StatefulProcessorHandle, self.handle))
            for result in self._processor.handleInputRows((row["bucket"],), iter([Row(**row)]), None):
                for name in self.counts:
                    self.counts[name] += result[name]
                # A row without results has none for any topic.
                for topic, results in zip(self._outputs, result.results, strict=False):
                    published = self.published[topic]
                    for symbol, value in zip(*form_messages(topic, [*decode_blobs(results).items()]), strict=True):
                        published.append(Record(0, len(published), symbol.encode(), value))


class Jobs:
    """The three stateful jobs, wired as the topics wire them."""

    def __init__(self, lateness: int = LATENESS_MS) -> None:
        self.moving = Job(MovingProcessor, lateness, (MOVING_TOPIC,))
        self.zscore = Job(ZScoreProcessor, lateness, (ZSCORE_TOPIC,))
        self.trend = Job(TrendProcessor, lateness, (HIGHER_TOPIC, LOWER_TOPIC))
        self.all = (self.moving, self.zscore, self.trend)
        self._lateness = lateness
        self._messages: list[Message] = []
        self._waiting: list[pa.RecordBatch] = []
        self._read = 0

    def run(self, sent: Iterable[Sent], ticks: bool = True, statistics: bool = True) -> None:
        """Take in a micro-batch; the zscore job reads all ticks, all statistics, both or neither of what is there."""
        first = len(self._messages)
        new = [keyed(0, first + at, one.record_timestamp, one.value) for at, one in enumerate(sent)]
        self._messages += new
        batch = [records(TICKS_TOPIC, [(one.offset, one.timestamp, one.key, one.value) for one in new])] if new else []
        self.moving.run(batch)
        self.trend.run(batch)
        self._waiting += batch
        read: list[pa.RecordBatch] = []
        if statistics and (unread := self.moving.published[MOVING_TOPIC][self._read :]):
            self._read += len(unread)
            read.append(records(MOVING_TOPIC, [(one.offset, 0, one.key, one.value) for one in unread]))
        if ticks:
            read += self._waiting
            self._waiting = []
        self.zscore.run(read)

    @property
    def published(self) -> dict[str, list[Record]]:
        return {topic: found for job in self.all for topic, found in job.published.items()}

    def check(self) -> None:
        """Everything that is owed is there, once, and right; what is kept is bounded."""
        report = compare_snapshot(Snapshot(self._messages, self.published), self._lateness)
        assert report.ok, report.text()
        expected = evaluate(self._messages, self._lateness)
        owed = {"late": expected.late, "duplicates": expected.duplicates, "rejects": len(expected.rejects)}
        assert [job.counts for job in self.all] == [owed] * 3


def records(topic: str, rows: list[tuple[int, int, bytes | None, bytes | None]]) -> pa.RecordBatch:
    """Kafka records (offset, timestamp in ms, key, value) as they are read."""
    offsets, timestamps, keys, values = zip(*rows, strict=True)
    columns = ([topic] * len(rows), [0] * len(rows), offsets, timestamps, keys, values)
    arrays = [pa.array(column, field.type) for column, field in zip(columns, RECORD_SCHEMA, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=RECORD_SCHEMA)


def tick(timestamp: int, units: int = 10**8, ahead: int = 0, symbol: str = "A") -> Sent:
    """A tick that is `ahead` ms ahead of its record."""
    return Sent(canonical(Tick(symbol, timestamp, units)), timestamp - ahead)


def ten_hertz(start: int, count: int, ahead: int = 0, symbol: str = "A") -> list[Sent]:
    return [tick(start + 100 * number, 10**8 * (100 + number * 7 % 13), ahead, symbol) for number in range(count)]


Some = TypeVar("Some")


def batches(sent: list[Some], size: int) -> Iterator[list[Some]]:
    return (sent[at : at + size] for at in range(0, len(sent), size))


@pytest.mark.parametrize("silence", [3 * HOUR, 2 * DAY, 3_652 * DAY], ids=["3 hours", "2 days", "10 years"])
def test_a_symbol_that_falls_silent_and_comes_back(silence: int) -> None:
    jobs = Jobs()
    # More than an hour at one tick a second, so that all chunks of an hour are there.
    before = [tick(NOON + SECOND * number, 10**8 + number * 31 % 17) for number in range(4_200)]
    back = ten_hertz(NOON + 4_200 * SECOND + silence, 600)
    for batch in batches(before, 300):
        jobs.run(batch)
    assert all(job.handle.largest <= MOST_CHUNKS for job in jobs.all)
    used = [job.handle.uses for job in jobs.all]
    jobs.run(back)
    # What is left of the hour before is looked at and taken away minute by minute; the silence itself costs nothing.
    assert all(job.handle.uses - before <= 3 * MOST_CHUNKS for job, before in zip(jobs.all, used, strict=True))
    jobs.run(ten_hertz(NOON + 4_200 * SECOND + silence + MINUTE, 600))
    assert all(job.handle.largest <= 3 for job in jobs.all)
    jobs.check()


def test_sixty_seconds_ahead_is_a_tick_and_a_millisecond_more_is_not() -> None:
    jobs = Jobs()
    jobs.run([*ten_hertz(NOON, 300), tick(NOON + 60_000, ahead=60_000), tick(NOON + 60_001, ahead=60_001)])
    jobs.run(ten_hertz(NOON + 30_000, 900))
    assert jobs.moving.counts == {"late": 200, "duplicates": 1, "rejects": 1}
    jobs.check()


def test_after_a_clock_that_ran_ahead_all_jobs_leave_out_the_same() -> None:
    jobs = Jobs()
    jobs.run(ten_hertz(NOON, 300))
    jobs.run(ten_hertz(NOON + 30_000 + 59_000, 50, ahead=59_000))
    for batch in batches(ten_hertz(NOON + 35_000, 1_200), 70):
        jobs.run(batch)
    assert jobs.moving.counts["late"] == (59_000 + 30_000 + 4_900 - 10_000 - 35_000) // 100
    jobs.check()


@pytest.mark.parametrize("jump", [-HOUR, HOUR, -DAY], ids=["back an hour", "forward an hour", "back a day"])
def test_a_broker_whose_clock_jumps(jump: int) -> None:
    """Ticks of true time on records of a time that jumps: rejected while it is too far back, unchanged otherwise."""
    jobs = Jobs()
    sent = ten_hertz(NOON, 600)
    jumped = [one._replace(record_timestamp=one.record_timestamp + jump) for one in sent[200:400]]
    for batch in batches([*sent[:200], *jumped, *sent[400:]], 100):
        jobs.run(batch)
    assert jobs.trend.counts["rejects"] == (200 if jump < 0 else 0)
    jobs.check()


def test_a_leap_second_is_rejected_and_what_is_around_it_counts() -> None:
    start = milliseconds_of("2016-12-31T23:59:30Z")
    sent = ten_hertz(start, 800)
    leap = [
        Sent(f'{{"symbol":"A","price":1,"timestamp":"{text}"}}'.encode(), start + 30 * SECOND)
        for text in ("2016-12-31T23:59:60Z", "2016-12-31T23:59:60.999+00:00", "2017-01-01T01:59:60+02:00")
    ]
    jobs = Jobs()
    jobs.run([*sent[:300], *leap])
    jobs.run([*sent[300:400], *leap, *sent[400:]])
    assert jobs.moving.counts == {"late": 0, "duplicates": 0, "rejects": 6}
    jobs.check()


@pytest.mark.parametrize("start", [FIRST, LAST - 60 * SECOND + 1], ids=["1970", "2261"])
def test_the_ends_of_time(start: int) -> None:
    jobs = Jobs()
    for batch in batches(ten_hertz(start, 600), 77):
        jobs.run(batch)
    assert jobs.moving.counts == {"late": 0, "duplicates": 0, "rejects": 0}
    jobs.check()


def test_an_hour_of_the_most_extreme_prices() -> None:
    """The largest and the smallest price in turn at 10 Hz: sums of squares far beyond 64 bits."""
    job = Job(MovingProcessor, LATENESS_MS, (MOVING_TOPIC,))
    sent = [tick(NOON + 100 * number, (1, 10**18 - 1)[number % 2]) for number in range(36_200)]
    messages = [keyed(0, offset, one.record_timestamp, one.value) for offset, one in enumerate(sent)]
    for batch in batches(messages, 5_000):
        job.run([records(TICKS_TOPIC, [(one.offset, one.timestamp or 0, one.key, one.value) for one in batch])])
    owed = evaluate(messages).stats
    found = list(topic_results(job.published[MOVING_TOPIC], "stats", stats_value))
    assert len(found) == len(owed) == 36_200 - 100
    assert owed["A", NOON + HOUR][-1].size == 36_000
    for one in found:
        assert judge_stats(owed[one.name], one.value) is None


STEPS = st.tuples(
    # To the next tick's time.
    st.sampled_from([0, 1, 100, 100, 100, 20_000, 20_001, 30_000, 60_000, HOUR, 3 * HOUR, 2 * DAY, 3_652 * DAY])
    | st.sampled_from([100, -1, -100, -9_900, -10_000, -10_001, -MINUTE, -HOUR, -3_652 * DAY]),
    # How far it is ahead of its record.
    st.sampled_from([0, 0, 0, 0, 59_000, 60_000, 60_001, -HOUR, HOUR]),
    st.sampled_from([10**8, 10**8, 10**8 + 1, 2 * 10**8, 1, 10**18 - 1]),
    st.sampled_from(["A", "A", "B"]),
)


@given(
    st.lists(STEPS, min_size=1, max_size=60),
    st.sampled_from([NOON, 0, FIRST, LAST]),
    st.sampled_from([0, 1, LATENESS_MS, HOUR]),
    st.dictionaries(st.integers(0, 59), st.tuples(st.booleans(), st.booleans()), max_size=8),
)
@settings(max_examples=200, deadline=None)
def test_any_jumps_in_any_batches(
    steps: list[tuple[int, int, int, str]], start: int, lateness: int, cuts: dict[int, tuple[bool, bool]]
) -> None:
    sent, now = [], start
    for step, ahead, units, symbol in steps:
        now = min(max(now + step, FIRST), LAST)
        one = tick(now, units, ahead, symbol)
        sent.append(one._replace(record_timestamp=min(max(one.record_timestamp, 0), LAST)))
    whole = Jobs(lateness)
    whole.run(sent)
    whole.check()

    parts = Jobs(lateness)
    for begin, end in itertools.pairwise(sorted({0, len(sent), *(cut for cut in cuts if cut < len(sent))})):
        parts.run(sent[begin:end], *cuts.get(begin, (True, True)))
    parts.run([])
    parts.check()
    for topic, published in whole.published.items():
        both = [[one.value for one in found] for found in (published, parts.published[topic])]
        assert sorted(map(str, both[0])) == sorted(map(str, both[1])), f"the cut into batches changed {topic}"
    # A symbol's statistics come in the order of its ticks, however the batches are cut.
    for key in (b"A", b"B"):
        series = [[one.value for one in jobs.published[MOVING_TOPIC] if one.key == key] for jobs in (whole, parts)]
        assert series[0] == series[1]
