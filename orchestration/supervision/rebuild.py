"""Replacing a stream's checkpoints by new ones that go on exactly where its results end.

A computation begins anew with the first message that is still there, and leaves out the results that are on its topics.
A copy goes on where its table ends, so its checkpoint is only replaced when it cannot be used. Old checkpoints are
moved aside. Wherever this is interrupted, whatever checkpoint is there then is right.
"""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import chain
from pathlib import Path

from confluent_kafka import KafkaException
from deltalake.exceptions import DeltaError, TableNotFoundError

from orchestration.local import processes
from orchestration.settings import OrchestrationSettings
from spark_jobs.checkpoints.checkpoint import VERSION, Checkpoint
from spark_jobs.checkpoints.files import LocalFiles
from spark_jobs.checkpoints.lock import CheckpointHeld, locked
from spark_jobs.sinks.delta import TableTarget, position, set_position
from spark_jobs.sinks.existing_results import survey
from spark_jobs.sinks.kafka import KafkaTarget, Markers, NoAnswer
from spark_jobs.sinks.table_lock import TableBusy
from tickhouse.contract.names import WINDOWS
from tickhouse.contract.topology import JOBS
from tickhouse.errors import NonRetryableError
from tickhouse.kafka.access import librdkafka_security
from tickhouse.kafka.range_reader import OffsetRange, read
from tickhouse.kafka.topics import TopicsUnknown, look
from tickhouse.places import local_path
from tickhouse.table_checksums import TableDamaged, open_table


class RebuildFailed(RuntimeError):
    """Nothing was replaced; the text says why and what to do."""


def rebuild(settings: OrchestrationSettings, stream: str) -> list[str]:
    """Replace the checkpoint of a stream's computation, and those of its copies that cannot be used.

    Returns what was done, in sentences. Raises RebuildFailed.
    """
    spec = JOBS[stream]
    process = processes.recorded(settings.home, stream)
    if process is not None and processes.alive(process):
        raise RebuildFailed(f"{stream} is running as process {process.pid}: stop it first (`stop_streams` in Dagster)")
    root = local_path(settings.checkpoints)
    if root is None:
        raise RebuildFailed(f"the checkpoints are at {settings.checkpoints}: only those in a local folder can be moved")
    mark = f"{datetime.datetime.now(datetime.UTC):%Y%m%dT%H%M%SZ}"
    done = []
    try:
        with ExitStack() as locks:
            for query in spec.queries:
                (root / query).mkdir(parents=True, exist_ok=True)
                locks.enter_context(locked(root / query))
            for query in spec.queries:
                if spec.publishes(query):
                    done += _computation(settings, stream, root / query, mark)
                else:
                    done += _copy(settings, stream, root / query, mark)
    except (CheckpointHeld, NonRetryableError, TopicsUnknown, NoAnswer, TableBusy) as error:
        raise RebuildFailed(str(error)) from error
    except (KafkaException, DeltaError, OSError) as error:
        raise RebuildFailed(f"{error}; what was replaced is right, run it again for the rest") from error
    return done


def _computation(settings: OrchestrationSettings, stream: str, folder: Path, mark: str) -> list[str]:
    client = {"bootstrap.servers": settings.kafka_bootstrap, **librdkafka_security(settings)}
    target = KafkaTarget(JOBS[stream].outputs, client)
    former = Checkpoint(LocalFiles(folder), stream)
    with contextlib.suppress(
        NonRetryableError, KeyError
    ):  # which query it was cannot be read: what is left open ends by itself
        # What an earlier session has left open ends here: it could still be committed, and holds up readers.
        Markers(former.query_id, target, former.state_partitions).write(lambda marker: None)
    found = survey(target.topics, client, round(settings.lateness_seconds * 1_000))
    made = folder.with_name(f"{folder.name}.rebuilt-{mark}")
    Checkpoint(LocalFiles(made), stream).keep_existing(found.to_json())
    _replace(folder, mark)
    made.rename(folder)
    symbols = [symbol for topic in found.existing.values() for symbol in topic.items()]
    done = f"{folder.name} begins anew, and leaves out the results of {len(dict(symbols))} symbols that are there"
    newest = max((int(held.later[-1]) for _, held in symbols), default=0)
    return [done, *_short_history(settings, stream, client, newest)]


def _short_history(
    settings: OrchestrationSettings, stream: str, client: dict[str, str], newest_ms: int
) -> Iterator[str]:
    """Say where the input does not go back far enough for the windows of what is yet to be published."""
    needed = newest_ms - max(WINDOWS.values()) - round(settings.lateness_seconds * 1_000)
    for topic, state in look(JOBS[stream].inputs, client, 30.0).items():
        begins = {number: extent.first for number, extent in state.partitions.items() if 0 < extent.first < extent.end}
        first = {number: offset + 1 for number, offset in begins.items()}
        for message in chain.from_iterable(read(OffsetRange(topic, begins, first), client)):
            if message.timestamp()[1] > needed:
                yield (
                    f"{topic} partition {message.partition()} begins less than an hour before the newest result: the "
                    "first averages lack what the broker has removed (`tickhouse backfill` corrects the tables)"
                )


def _copy(settings: OrchestrationSettings, stream: str, folder: Path, mark: str) -> list[str]:
    spec, query = JOBS[stream], folder.name
    tables = spec.written_by(query)
    targets = [TableTarget(table, f"{settings.lakehouse.rstrip('/')}/{table}", settings.home) for table in tables]
    checkpoint = Checkpoint(LocalFiles(folder), stream)
    try:
        ids = {target.table: str(open_table(target.uri).metadata().id) for target in targets}
        checkpoint.claim({"query": query, "version": VERSION, **ids})
        checkpoint.inspect()
        return []
    except TableNotFoundError:
        reached = []
    except TableDamaged:
        raise  # no checkpoint is to be replaced for it
    except NonRetryableError:
        (topic,) = spec.queries[query]
        client = {"bootstrap.servers": settings.kafka_bootstrap, **librdkafka_security(settings)}
        state = look((topic,), client, 30.0).get(topic)
        reached = [position(target.uri, topic, state.topic_id, state.partitions) if state else {} for target in targets]
        rows = [open_table(target.uri).count() for target in targets]
        if state and rows[0] and not reached[0]:
            raise RebuildFailed(
                f"the table {query} was written by an earlier version and does not say up to where it has {topic}: "
                "remove the table to have it copied anew"
            ) from None
        for target, known in zip(targets[1:], reached[1:], strict=True):
            if state and reached[0] and not known:
                set_position(target, topic, state.topic_id, reached[0])
    _replace(folder, mark)
    return [f"{query} goes on where its table ends"]


def _replace(folder: Path, mark: str) -> None:
    folder.rename(folder.with_name(f"{folder.name}.replaced-{mark}"))
