"""Going on past messages that are lost: the deliberate decision that a stream never makes by itself.

Here: finding what one stream would skip, recording it, and moving its checkpoints past it.
Not here: asking (`orchestration.cli`), what a gap is (`spark_jobs.gaps`), the files of a checkpoint
(`spark_jobs.checkpoints`).

The end of a query's last micro-batch is where its next one begins; it is that which is moved. State, numbers of
micro-batches, and the query's id with its marker of what is published stay as they are.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from deltalake.exceptions import DeltaError

from orchestration import gap_table, processes
from orchestration.settings import OrchestrationSettings
from spark_jobs.checkpoint_files import LocalFiles, local_path
from spark_jobs.checkpoint_lock import CheckpointHeld, locked
from spark_jobs.checkpoints import Checkpoint
from spark_jobs.gaps import Gap, find_gaps, past
from spark_jobs.jobs import JOBS
from spark_jobs.kafka_access import librdkafka_security
from spark_jobs.refusals import Refusal
from spark_jobs.topics import Topic, TopicsUnknown, look


class SkipFailed(RuntimeError):
    """Nothing was skipped; the text says why and what to do."""


class Skip(NamedTuple):
    """What one query would skip."""

    query: str
    folder: Path
    topics: dict[str, Topic]
    gaps: list[Gap]


def find(settings: OrchestrationSettings, stream: str) -> list[Skip]:
    """What the queries of a stream would skip now; empty when all is there. Raises SkipFailed."""
    skips = []
    for query, names in JOBS[stream].queries.items():
        folder = local_path(f"{settings.checkpoints.rstrip('/')}/{query}")
        if folder is None:
            raise SkipFailed(
                f"the checkpoints are at {settings.checkpoints}: only those in a local folder can be moved"
            )
        if not folder.exists():
            continue
        try:
            checkpoint = _checkpoint(stream, query, folder)
            progress, known_ids = checkpoint.inspect(), checkpoint.topic_ids()
            client = {"bootstrap.servers": settings.kafka_bootstrap, **librdkafka_security(settings)}
            topics = look(names, client, 10.0)
        except (Refusal, TopicsUnknown) as error:
            raise SkipFailed(str(error)) from error
        gaps = find_gaps(progress.offsets, progress.planned, known_ids, topics) if progress else []
        if gaps:
            skips.append(Skip(query, folder, topics, gaps))
    return skips


def apply(settings: OrchestrationSettings, stream: str, shown: Sequence[Skip]) -> None:
    """Record the gaps and move the stream's checkpoints past them, if they are still those that were shown.

    Raises SkipFailed: while the stream runs, when other messages are lost by now, or when a topic does not exist.
    """
    process = processes.recorded(settings.home, stream)
    if process is not None and processes.alive(process):
        raise SkipFailed(f"{stream} is running as process {process.pid}: stop it first (`stop_streams` in Dagster)")
    for skip in shown:
        for gap in skip.gaps:
            if gap.reason == "deleted":
                raise SkipFailed(f"{gap.sentence()}: create it again before going on past what it held")
    at = datetime.datetime.now(datetime.UTC)
    try:
        with ExitStack() as locks:
            for skip in shown:
                locks.enter_context(locked(skip.folder))
            if [skip.gaps for skip in find(settings, stream)] != [skip.gaps for skip in shown]:
                raise SkipFailed("what is lost has changed in the meantime: look at it again")
            # First the record: whatever happens then, no gap is without one.
            gap_table.append(settings.lakehouse, [(skip.query, gap) for skip in shown for gap in skip.gaps], at)
            for skip in shown:
                _move(_checkpoint(stream, skip.query, skip.folder), skip, at)
    except (CheckpointHeld, DeltaError, OSError) as error:
        raise SkipFailed(str(error)) from error


def _move(checkpoint: Checkpoint, skip: Skip, at: datetime.datetime) -> None:
    progress = checkpoint.inspect()
    assert progress is not None
    planned = None if progress.planned is None else past(progress.planned, skip.gaps)
    checkpoint.go_on_from(progress, past(progress.offsets, skip.gaps), planned, f"{at:%Y%m%dT%H%M%SZ}")
    # The ids say which topics the offsets are of, so they come after them.
    checkpoint.note_topic_ids({name: topic.topic_id for name, topic in skip.topics.items()})


def _checkpoint(stream: str, query: str, folder: Path) -> Checkpoint:
    return Checkpoint(LocalFiles(folder), JOBS[stream].written_by(query))
