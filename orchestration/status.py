"""How the whole pipeline is: what `tickhouse status` shows.

Here: collecting it, from files, Kafka, Delta and MongoDB, each of which may be away, the judgement whether a finite
source has gone through everything, and a table for people.
Not here: changing anything; the command line (`orchestration.cli`).
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Mapping
from typing import Any

from deltalake.exceptions import DeltaError
from pydantic import BaseModel
from pymongo.errors import PyMongoError

from orchestration import gap_table, processes
from orchestration.kafka import KafkaAway, KafkaRefuses, Offsets, Topics, lag
from orchestration.lakehouse import Lakehouse, TableVersion
from orchestration.mongo_address import without_password
from orchestration.mongo_load import COLLECTIONS, TABLE, Loaded, MongoStore, fault
from orchestration.settings import OrchestrationSettings, read_endpoints
from orchestration.streams import Streams
from orchestration.supervisor import StreamView, epoch_seconds
from spark_jobs.jobs import JOBS, TOPICS, JobSpec
from spark_jobs.kafka_access import librdkafka_security
from spark_jobs.offsets import numbered

_KAFKA_SECONDS = 0.8
_MONGO_SECONDS = 0.6
_FRESH_SECONDS = 30.0
_ALWAYS = ("kafka", "mongod", "code-server", "daemon")
"""Services that every local stack has; the others depend on what it was told."""


class StreamStatus(BaseModel):
    """One stream job. Counts are cumulative since its checkpoint began; None = never said."""

    state: str
    """running, starting, stopping, stopped, crashed, hung or given_up."""
    pid: int | None = None
    wanted: bool = True
    """Whether it should be running: not once it was stopped by hand, or drained."""
    error: str | None = None
    input_rows: int | None = None
    output_rows: int | None = None
    late: int | None = None
    duplicates: int | None = None
    rejects: int | None = None
    lag: int | None = None
    """Messages on its input topics that it has not processed."""
    archive_lag: int | None = None
    """Messages on its output topics that are not in its tables yet."""
    last_batch_ms: float | None = None
    last_event_time: str | None = None


class ProducerStatus(BaseModel):
    """The producer, by its last heartbeat."""

    state: str = "stopped"
    pid: int | None = None
    sent: int = 0
    acknowledged: int = 0
    skipped: int = 0
    failures: dict[str, int] = {}
    last_timestamp: str | None = None
    note: str | None = None
    error: str | None = None


class CollectionStatus(BaseModel):
    """One MongoDB collection: every row of the table up to `delta_version` is in it, `documents` in number."""

    documents: int | None
    """None when it is not known, as MongoDB does not answer."""
    delta_version: int | None
    """None when nothing was loaded yet, or when that is not known."""


class ServiceStatus(BaseModel):
    """One local process that is neither stream nor producer."""

    state: str
    """running or stopped."""
    pid: int | None


class GapStatus(BaseModel):
    """One gap that a query was told to go past: of one partition, from one offset up to, not including, another."""

    query: str
    topic: str
    partition: int
    from_offset: int
    to_offset: int | None
    """None when the partition did not exist any more."""
    messages: int | None
    """None when the topic was created again or cut off: how many were lost cannot be known."""
    reason: str
    skipped_at: datetime.datetime


class Status(BaseModel):
    """Everything. `problems` says in sentences what could not be looked at, and what to do."""

    source: str | None
    source_note: str | None
    kafka_bootstrap: str
    mongo_uri: str
    lakehouse: str
    dagster_url: str | None
    board_url: str | None = None
    producer: ProducerStatus
    streams: dict[str, StreamStatus]
    load: dict[str, CollectionStatus]
    services: dict[str, ServiceStatus]
    drained: bool
    waiting_for: list[str]
    """Why `drained` is not true, in words."""
    problems: list[str]
    gaps: list[GapStatus] = []
    """Messages that were lost in a topic and gone past by `tickhouse skip`, oldest first."""
    not_at_work: list[str] = []
    """What should be at work and is not, in words; empty when everything is."""


def collect(settings: OrchestrationSettings) -> Status:
    """Look at everything, in at most about two seconds. Parts that are away are named in `problems`.

    Raises SettingsError when the home's `endpoints.json` is damaged.
    """
    problems: list[str] = []
    endpoints = read_endpoints(settings.home)
    # The order is what makes `drained` certain: consumers are looked at before what they consume. Anything that comes
    # in between then makes a consumer look behind, never ahead.
    producer = processes.read_heartbeat(settings.home, "producer") or {}
    heartbeats = {name: processes.read_heartbeat(settings.home, name) or {} for name in JOBS}
    ends = _ends(settings, problems)
    version = _table_version(settings, problems)
    loaded = _loaded(settings, problems)
    source = endpoints.source if endpoints else producer.get("source")
    reasons = waiting_for(source, producer, heartbeats, ends, version, loaded or {})
    streams = Streams(settings)
    given_up = streams.given_up()
    status = Status(
        source=source,
        source_note=endpoints.source_note if endpoints else None,
        kafka_bootstrap=settings.kafka_bootstrap,
        mongo_uri=without_password(settings.mongo_uri.get_secret_value()),
        lakehouse=settings.lakehouse,
        dagster_url=endpoints.dagster_url if endpoints else None,
        board_url=endpoints.board_url if endpoints else None,
        producer=_producer(settings, producer),
        streams={
            name: _stream(streams.observe(name), spec, ends, given_up.get(name), streams.wanted(name))
            for name, spec in JOBS.items()
        },
        load={collection: _collection(loaded, collection) for collection in COLLECTIONS.values()},
        services=_services(settings),
        drained=not reasons,
        waiting_for=reasons,
        problems=problems,
        gaps=_gaps(settings, problems),
    )
    return status.model_copy(update={"not_at_work": not_at_work(status)})


def not_at_work(status: Status) -> list[str]:
    """What should be at work and is not, in words; empty when everything is.

    A producer that waits for the exchange is at work, and so is one that has sent all of a recording. Streams that were
    stopped by hand, or drained, need not be.
    """
    needed = {*_ALWAYS, *(["simulator"] if status.source == "simulator" else [])}
    needed |= {name for name, url in (("webserver", status.dagster_url), ("board", status.board_url)) if url}
    # In containers none is recorded: there the answers of Kafka and MongoDB tell.
    states = {name: service.state for name, service in status.services.items() if name in needed}
    if status.producer.state not in ("waiting", "ended"):
        states["producer"] = status.producer.state
    states |= {f"stream {name}": stream.state for name, stream in status.streams.items() if stream.wanted}
    idle = [f"{name} is {state.replace('_', ' ')}" for name, state in states.items() if state != "running"]
    return idle + status.problems


def not_final(status: Status) -> int | None:
    """How many ticks were read whose results wait for later ticks; None while that cannot be told.

    It can once nothing waits to be read: of the ticks that `moving` has read, those are left that it has neither left
    out nor published.
    """
    moving = status.streams["moving"]
    left_out = (moving.output_rows, moving.late, moving.duplicates, moving.rejects)
    if moving.lag != 0 or moving.input_rows is None or None in left_out:
        return None
    return max(0, moving.input_rows - sum(count or 0 for count in left_out))


def waiting_for(
    source: str | None,
    producer: Mapping[str, Any],
    heartbeats: Mapping[str, Mapping[str, Any]],
    ends: Offsets,
    zscores: TableVersion | None,
    loaded: Mapping[str, Loaded],
) -> list[str]:
    """What a finite source's messages still have to go through; empty when all of it is done.

    `source` is the one that is meant to run, `producer` the producer's heartbeat, which may be of an earlier source;
    `heartbeats` by job, `ends` by topic, `loaded` by collection. The heartbeats must have been read before `ends`,
    these before the table's version, and that before `loaded`.
    """
    reasons = []
    if source is None or not source.startswith("replay:"):
        reasons.append("the source has no end" if source else "there is no source")
    elif producer.get("source") != source:
        reasons.append("the source has not begun")
    elif producer.get("state") != "ended":
        reasons.append("the source has not ended")
    for name, spec in JOBS.items():
        for query, topics in spec.queries.items():
            behind = lag(ends, offsets_of(heartbeats.get(name, {}), query), topics)
            if behind is None:
                reasons.append(f"the end of {' or '.join(topics)} is not known")
            elif behind:
                reasons.append(f"query {query} has {behind} messages to go")
    if zscores is None:
        reasons.append(f"there is no table {TABLE}")
    for collection in COLLECTIONS.values():
        record = loaded.get(collection)
        if record is None or zscores is None or record[:2] != (zscores.table_id, zscores.version):
            reasons.append(f"collection {collection} is not up to date")
    return reasons


def offsets_of(heartbeat: Mapping[str, Any], query: str) -> Offsets:
    """Next offsets to read of a query, by topic and partition, as its heartbeat says; empty when it does not."""
    return numbered(heartbeat.get("queries", {}).get(query, {}).get("offsets", {}))


def stream_lag(spec: JobSpec, heartbeat: Mapping[str, Any], ends: Offsets) -> int | None:
    """Messages that wait for a job's computation; None when unknown."""
    return lag(ends, offsets_of(heartbeat, spec.name), spec.inputs) if heartbeat else None


def archive_lag(spec: JobSpec, heartbeat: Mapping[str, Any], ends: Offsets) -> int | None:
    """Messages of a job's output topics that are not in its tables yet; None when unknown or when it has none."""
    lags = [lag(ends, offsets_of(heartbeat, table), (topic,)) for table, topic in spec.archives.items()]
    known = [value for value in lags if value is not None]
    return sum(known) if heartbeat and known and len(known) == len(lags) else None


def _ends(settings: OrchestrationSettings, problems: list[str]) -> Offsets:
    try:
        return Topics(settings.kafka_bootstrap, _KAFKA_SECONDS, librdkafka_security(settings)).end_offsets(TOPICS)
    except KafkaRefuses as error:
        problems.append(f"{error}")
        return {}
    except KafkaAway as error:
        problems.append(f"{error}: start the stack with `tickhouse up`, or set TICKHOUSE_KAFKA_BOOTSTRAP")
        return {}


def _table_version(settings: OrchestrationSettings, problems: list[str]) -> TableVersion | None:
    try:
        return Lakehouse(settings.lakehouse).version(TABLE)
    except (DeltaError, OSError) as error:
        problems.append(f"the table {TABLE} in {settings.lakehouse} cannot be read: {error}")
        return None


def _gaps(settings: OrchestrationSettings, problems: list[str]) -> list[GapStatus]:
    try:
        return [GapStatus.model_validate(row) for row in gap_table.rows(settings.lakehouse)]
    except (DeltaError, OSError) as error:
        problems.append(f"the table {gap_table.NAME} in {settings.lakehouse} cannot be read: {error}")
        return []


def _loaded(settings: OrchestrationSettings, problems: list[str]) -> dict[str, Loaded] | None:
    try:
        store = MongoStore(settings.mongo_uri.get_secret_value(), _MONGO_SECONDS)
        try:
            return store.loaded()
        finally:
            store.close()
    except PyMongoError as error:
        problems.append(f"MongoDB at {without_password(settings.mongo_uri.get_secret_value())} {fault(error)}")
        return None


def _collection(loaded: Mapping[str, Loaded] | None, collection: str) -> CollectionStatus:
    if loaded is None:
        return CollectionStatus(documents=None, delta_version=None)
    record = loaded.get(collection)
    return CollectionStatus(
        documents=record.documents if record else 0, delta_version=record.delta_version if record else None
    )


def _producer(settings: OrchestrationSettings, heartbeat: Mapping[str, Any]) -> ProducerStatus:
    process = processes.recorded(settings.home, "producer")
    alive = process is not None and processes.alive(process)
    told = {field: heartbeat[field] for field in ProducerStatus.model_fields if heartbeat.get(field) is not None}
    status = ProducerStatus.model_validate(told)
    status.pid = process.pid if process and alive else None
    if not alive and status.state in ("running", "waiting"):
        # One without a record was started by hand, by another service manager perhaps: its heartbeat alone tells.
        fresh = time.time() - epoch_seconds(heartbeat["written_at"]) < _FRESH_SECONDS
        if process is not None or not fresh:
            status.state = "crashed"
    return status


def _stream(view: StreamView, spec: JobSpec, ends: Offsets, given_up: str | None, wanted: bool) -> StreamStatus:
    heartbeat = view.heartbeat
    told = {field: heartbeat[field] for field in StreamStatus.model_fields if heartbeat.get(field) is not None}
    left_alone = given_up is not None and view.state in ("crashed", "hung")
    return StreamStatus.model_validate(
        told
        | {
            "state": "given_up" if left_alone else view.state,
            "pid": view.pid,
            "wanted": wanted,
            "error": given_up if left_alone else view.error,
            "lag": stream_lag(spec, heartbeat, ends),
            "archive_lag": archive_lag(spec, heartbeat, ends),
        }
    )


def _services(settings: OrchestrationSettings) -> dict[str, ServiceStatus]:
    services = {}
    for name in processes.recorded_names(settings.home):
        process = processes.recorded(settings.home, name)
        if process is not None and name not in JOBS:
            alive = processes.alive(process)
            services[name] = ServiceStatus(state="running" if alive else "stopped", pid=process.pid if alive else None)
    return services
