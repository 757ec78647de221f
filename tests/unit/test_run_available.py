"""A stream that is to process what is there is done when its checkpoint says so, whatever its query's status says."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from spark_jobs import run
from spark_jobs.checkpoints.checkpoint import Checkpoint
from spark_jobs.checkpoints.files import LocalFiles
from spark_jobs.goal import Goal
from spark_jobs.heartbeat import Heartbeat
from spark_jobs.settings import StreamSettings
from spark_jobs.shutdown import StopRequest
from tickhouse.contract.names import MOVING_TOPIC, TICKS_TOPIC
from tickhouse.contract.topology import JOBS
from tickhouse.kafka.offsets import NamedOffsets, Offsets, named

ENDS: Offsets = {TICKS_TOPIC: {0: 10, 1: 6}, MOVING_TOPIC: {0: 8}}


@pytest.mark.parametrize(
    ("first", "ends", "position", "reached"),
    [
        ({}, {}, {}, True),
        ({"t": {0: 0}}, {"t": {0: 0}}, {}, True),  # empty topics
        ({"t": {0: 0}}, {"t": {0: 5}}, {}, False),
        ({"t": {0: 5}}, {"t": {0: 5}}, {}, True),  # all of it removed by retention before the query began
        ({"t": {0: 3}}, {"t": {0: 5}}, {}, False),
        ({"t": {0: 0}}, {"t": {0: 5}}, {"t": {0: 4}}, False),
        ({"t": {0: 0}}, {"t": {0: 5}}, {"t": {0: 5}}, True),
        ({"t": {0: 0}}, {"t": {0: 5}}, {"t": {0: 9}}, True),  # more came, and a copy took it along
        ({"t": {0: 0, 1: 0}}, {"t": {0: 5, 1: 2}}, {"t": {0: 5}}, False),  # a new partition
        ({"t": {0: 0, 1: 0}}, {"t": {0: 5, 1: 0}}, {"t": {0: 5}}, True),
        ({"t": {0: 0}}, {"t": {0: 5}}, {"t": {0: 5, 1: 7}}, True),  # a partition that came later
        ({"t": {0: 0}, "u": {0: 0}}, {"t": {0: 5}, "u": {0: 1}}, {"t": {0: 5}}, False),  # one of two inputs
    ],
)
def test_a_goal_is_reached_when_every_partition_is(
    first: Offsets, ends: Offsets, position: Offsets, reached: bool
) -> None:
    assert Goal(first, ends).reached(position) is reached


class Report(NamedTuple):
    """What Spark reports of a micro-batch, as py4j gives it."""

    batch: int
    offsets: NamedOffsets

    def json(self) -> str:
        return json.dumps(
            {
                "batchId": self.batch,
                "timestamp": f"{self.batch}",
                "durationMs": {"addBatch": 1},
                "sources": [{"endOffset": self.offsets}],
            }
        )


class Query:
    """A query that, whenever it is looked at, is between two micro-batches: Spark then says this, data or not."""

    isActive = True
    status = {"message": "Initializing sources", "isDataAvailable": False, "isTriggerActive": False}  # noqa: RUF012

    def __init__(self, name: str, folder: Path, steps: list[Offsets], ends_by_itself: bool = False) -> None:
        self.name = name
        self._folder = folder
        self._steps = steps
        self._ends_by_itself = ends_by_itself
        self.committed = 0
        self.progress: Report | None = None
        self._jsq = self

    def look(self) -> None:
        """Commit the next micro-batch, as far as there are any."""
        if self.committed == len(self._steps):
            self.isActive = self.isActive and not self._ends_by_itself
            return
        offsets = named(self._steps[self.committed])
        for log, content in (("offsets", ["v1", "{}", json.dumps(offsets)]), ("commits", ["v1", "{}"])):
            (self._folder / log).mkdir(parents=True, exist_ok=True)
            (self._folder / log / str(self.committed)).write_text("\n".join(content))
        self.progress = Report(self.committed, offsets)
        self.committed += 1

    def lastProgress(self) -> Report | None:
        return self.progress

    def stop(self) -> None:
        self.isActive = False

    def exception(self) -> None:
        return None


class Looks(StopRequest):
    """No waiting: each wait is one look at the queries; a request to stop comes with look number `stop_at`."""

    def __init__(self, look: Callable[[], None], stop_at: int | None = None) -> None:
        super().__init__()
        self._look = look
        self._left = stop_at

    def wait(self, seconds: float) -> bool:
        self._look()
        if self._left is not None:
            self._left -= 1
            if self._left == 0:
                self.set()
        return self.is_set()


class Ran(NamedTuple):
    done: bool
    queries: list[Query]


def run_available(
    folder: Path, compute: list[Offsets], copy: list[Offsets], stop_at: int | None = None, copy_ends: bool = True
) -> Ran:
    """The queries of `zscore`, on checkpoints that are written as Spark writes them."""
    queries = [Query("zscore", folder / "zscore", compute), Query("zscores", folder / "zscores", copy, copy_ends)]
    started: list[Query] = []
    job = run._Job(
        JOBS["zscore"],
        StreamSettings(home=folder, trigger="available_now"),
        None,  # type: ignore[arg-type]
        Heartbeat(folder / "zscore.heartbeat.json", "zscore", "available_now"),
        Looks(lambda: started[-1].look(), stop_at),
    )
    topic = JOBS["zscore"].outputs[0]
    goals = [Goal({}, ENDS), Goal({}, {topic: {0: 4}})]

    def starts() -> Iterator[Callable[[], Any]]:
        for query, goal in zip(queries, goals, strict=True):

            def start(query: Query = query, goal: Goal = goal) -> Query:
                checkpoint = Checkpoint(LocalFiles(folder / query.name), "moving")
                job._checkpoints[query.name] = (checkpoint, tuple(goal.ends))
                job._goals[query.name] = goal
                started.append(query)
                return query

            yield start

    job._starts = starts  # type: ignore[method-assign]
    return Ran(job._run_available(), started)


BATCHES: list[Offsets] = [
    {TICKS_TOPIC: {0: 4, 1: 6}, MOVING_TOPIC: {0: 0}},
    {TICKS_TOPIC: {0: 10, 1: 6}, MOVING_TOPIC: {0: 0}},
    {TICKS_TOPIC: {0: 10, 1: 6}, MOVING_TOPIC: {0: 5}},
    {TICKS_TOPIC: {0: 10, 1: 6}, MOVING_TOPIC: {0: 8}},
]
COPIES: list[Offsets] = [{JOBS["zscore"].outputs[0]: {0: 2}}, {JOBS["zscore"].outputs[0]: {0: 4}}]


def test_between_two_micro_batches_it_is_not_done(tmp_path: Path) -> None:
    done, (compute, copy) = run_available(tmp_path, BATCHES, COPIES)
    assert (done, compute.committed, copy.committed) == (True, len(BATCHES), len(COPIES))


def test_stopped_on_the_way_it_is_not_done(tmp_path: Path) -> None:
    done, (compute,) = run_available(tmp_path, BATCHES, COPIES, stop_at=2)
    assert (done, compute.committed) == (False, 2)


def test_a_copy_that_ends_before_the_end_is_a_failure(tmp_path: Path) -> None:
    with pytest.raises(run.QueryFailed, match="query zscores ended before it had processed all that was there"):
        run_available(tmp_path, BATCHES, COPIES[:1])
