"""Going on past messages that are lost: the deliberate decision that a stream never makes by itself.

The end of a query's last micro-batch is where its next one begins; it is that which is moved. What says up to where
results are published or copied (`tickhouse.kafka.markers`, the log of a table) is moved first, and likewise: a skip
that was interrupted is done again. State, numbers of micro-batches, and the query's id stay as they are.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from confluent_kafka import KafkaException
from deltalake.exceptions import DeltaError, TableNotFoundError

from orchestration.lakehouse import gap_log
from orchestration.local import processes
from orchestration.settings import OrchestrationSettings
from spark_jobs.checkpoints.checkpoint import NOT_BEGUN, Checkpoint, Progress
from spark_jobs.checkpoints.files import LocalFiles
from spark_jobs.checkpoints.gaps import Gap, find_gaps, past
from spark_jobs.checkpoints.lock import CheckpointHeld, locked
from spark_jobs.sinks.delta import TableTarget, position, set_position
from spark_jobs.sinks.kafka import KafkaTarget, Markers, NoAnswer
from spark_jobs.sinks.table_lock import TableBusy
from tickhouse.contract.topology import JOBS
from tickhouse.errors import NonRetryableError
from tickhouse.kafka.access import librdkafka_security
from tickhouse.kafka.markers import Marker, MarkerMismatch, adopted, covers, digest, furthest, lost
from tickhouse.kafka.topics import Topic, TopicsUnknown, look
from tickhouse.places import local_path


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
            checkpoint = Checkpoint(LocalFiles(folder), stream)
            progress, known_ids = checkpoint.inspect() or NOT_BEGUN, checkpoint.topic_ids()
            topics = look(names, _client(settings), 10.0)
            planned = progress.planned
            if JOBS[stream].publishes(query) and checkpoint.marked:
                # What is published has been read, whatever a checkpoint that was put back knows of it.
                markers = Markers(checkpoint.query_id, _target(settings, stream), checkpoint.state_partitions).read()
                planned = furthest(markers, progress.planned or progress.offsets)
        except (NonRetryableError, TopicsUnknown, KafkaException) as error:
            raise SkipFailed(str(error)) from error
        wanted = progress.offsets if progress.batch >= 0 else checkpoint.begins
        if not JOBS[stream].publishes(query):
            # As the stream does: a copy goes on where its table ends.
            wanted = {
                topic: wanted.get(topic, {}) | _position(settings, query, topic, state)
                for topic, state in topics.items()
            }
        gaps = find_gaps(wanted, planned, known_ids, topics)
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
            gap_log.append(settings.lakehouse, [(skip.query, gap) for skip in shown for gap in skip.gaps], at)
            for skip in shown:
                checkpoint = Checkpoint(LocalFiles(skip.folder), stream)
                if JOBS[stream].publishes(skip.query):
                    _move_markers(settings, stream, checkpoint, skip)
                else:
                    _move_tables(settings, stream, skip)
                _move(checkpoint, skip, at)
    except (CheckpointHeld, NonRetryableError, KafkaException, NoAnswer, TableBusy, DeltaError, OSError) as error:
        raise SkipFailed(str(error)) from error


def _move_markers(settings: OrchestrationSettings, stream: str, checkpoint: Checkpoint, skip: Skip) -> None:
    progress = checkpoint.inspect() or NOT_BEGUN
    markers = Markers(checkpoint.query_id, _target(settings, stream), checkpoint.state_partitions)
    marked, known = checkpoint.marked, any(marker is not None for marker in markers.read())
    markers.write(
        lambda found: moved(found if marked else adopted(found, known, *progress), progress, skip.gaps),
    )
    checkpoint.note_marked()


def moved(marker: Marker | None, progress: Progress, gaps: Sequence[Gap]) -> Marker:
    """A marker past gaps. Raises MarkerMismatch where it does not suit the checkpoint."""
    if marker is None:
        raise lost()
    if marker.ends == {}:
        return marker  # nothing is published
    places = [progress.offsets] if progress.planned is None else [progress.offsets, progress.planned]
    for place in places:
        if marker.ends in (place, digest(place)):
            return marker._replace(ends=past(place, gaps))
    if isinstance(marker.ends, dict):
        if marker.ends in [past(place, gaps) for place in places]:
            return marker  # by a skip that was interrupted
        if covers(marker.ends, places[-1]):
            return marker._replace(ends=past(marker.ends, gaps))
    raise MarkerMismatch(
        "what is published does not suit the checkpoint, so it cannot be moved: `tickhouse rebuild` makes a new one"
    )


def _move_tables(settings: OrchestrationSettings, stream: str, skip: Skip) -> None:
    for table in JOBS[stream].written_by(skip.query):
        for topic, state in skip.topics.items():
            reached = _position(settings, table, topic, state)
            if reached:
                set_position(
                    TableTarget(table, _table_uri(settings, table), settings.home),
                    topic,
                    state.topic_id,
                    past({topic: reached}, [gap for gap in skip.gaps if gap.topic == topic])[topic],
                )


def _position(settings: OrchestrationSettings, table: str, topic: str, state: Topic) -> dict[int, int]:
    try:
        return position(_table_uri(settings, table), topic, state.topic_id, state.partitions)
    except TableNotFoundError:
        return {}


def _table_uri(settings: OrchestrationSettings, table: str) -> str:
    return f"{settings.lakehouse.rstrip('/')}/{table}"


def _target(settings: OrchestrationSettings, stream: str) -> KafkaTarget:
    return KafkaTarget(JOBS[stream].outputs, _client(settings))


def _client(settings: OrchestrationSettings) -> dict[str, str]:
    return {"bootstrap.servers": settings.kafka_bootstrap, **librdkafka_security(settings)}


def _move(checkpoint: Checkpoint, skip: Skip, at: datetime.datetime) -> None:
    progress = checkpoint.inspect() or NOT_BEGUN
    if progress.batch < 0:
        checkpoint.note_begins(past(checkpoint.begins, skip.gaps))
    if progress != NOT_BEGUN:
        planned = None if progress.planned is None else past(progress.planned, skip.gaps)
        checkpoint.go_on_from(progress, past(progress.offsets, skip.gaps), planned, f"{at:%Y%m%dT%H%M%SZ}")
    # The ids say which topics the offsets are of, so they come after them.
    checkpoint.note_topic_ids({name: topic.topic_id for name, topic in skip.topics.items()})
