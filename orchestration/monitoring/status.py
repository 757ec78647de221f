"""How the whole pipeline is: what `tickhouse status` shows."""

from __future__ import annotations

import datetime
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import psutil
from deltalake.exceptions import DeltaError
from pydantic import BaseModel
from pymongo.errors import ConnectionFailure, PyMongoError

from orchestration.lakehouse import gap_log
from orchestration.lakehouse.tables import Lakehouse, TableVersion
from orchestration.local import processes
from orchestration.local.home_lock import AlreadyRunning, holder
from orchestration.local.ports import http_answers
from orchestration.mongo_address import without_password
from orchestration.monitoring.stack_health import ahead
from orchestration.monitoring.stack_probe import work_not_done
from orchestration.serving.mongo import COLLECTIONS, TABLE, Loaded, MongoStore, fault
from orchestration.settings import Endpoints, OrchestrationSettings, read_endpoints
from orchestration.supervision.lag import (
    KafkaAway,
    KafkaRefuses,
    Offsets,
    Topics,
    archive_lag,
    lag,
    offsets_of,
    stream_lag,
)
from orchestration.supervision.stream_health import epoch_seconds
from orchestration.supervision.streams import Streams
from tickhouse.contract.topology import JOBS, TOPICS, JobSpec
from tickhouse.kafka.access import librdkafka_security

_KAFKA_SECONDS = 0.8
_MONGO_SECONDS = 0.6
_PAGE_SECONDS = 2.0
_FRESH_SECONDS = 30.0
_STARTING_SECONDS = 60.0
"""So long a service may take until it answers."""
_ALWAYS = ("kafka", "mongod", "code-server", "daemon")
"""Services that every local stack has; the others depend on what it was told."""


class StreamStatus(BaseModel):
    """One stream job. Counts are cumulative since its checkpoint began; None = never said."""

    state: str
    """running, starting, stopping, stopped, crashed, hung, given_up, suspended (by a signal) or unknown."""
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
    """running; stopped; starting or hung: it does not answer (yet); suspended, by a signal; or unknown: its record
    is damaged."""
    pid: int | None
    started_at: float | None = None
    """In seconds since the epoch."""


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
    kafka_bootstrap: str | None
    """None as long as the stack that is starting has no addresses."""
    mongo_uri: str | None
    lakehouse: str
    dagster_url: str | None
    board_url: str | None = None
    up_pid: int | None = None
    """The process of `tickhouse up`, which starts services and keeps them running."""
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
    """Look at everything, in at most about two seconds. Parts that are away, or damaged, are named in `problems`.

    Raises SettingsError when the home's `endpoints.json` is damaged.
    """
    problems: list[str] = []
    home = settings.home
    up = _up(home, problems)
    endpoints = read_endpoints(home)
    starting = up is not None and not _written_since(home / "endpoints.json", up)
    addresses = _addresses(settings, endpoints, starting)
    if starting:
        endpoints = None  # an earlier stack's: the one that is starting has yet to choose its own
    with ThreadPoolExecutor(2, "probe") as pool:
        pages = {
            name: pool.submit(http_answers, url, path, _PAGE_SECONDS)
            for name, url, path in (
                ("webserver", endpoints.dagster_url if endpoints else None, "/server_info"),
                ("board", endpoints.board_url if endpoints else None, "/"),
            )
            if url is not None
        }
        # The order is what makes `drained` certain: consumers are looked at before what they consume. Anything that
        # comes in between then makes a consumer look behind, never ahead.
        producer = _heartbeat(home, "producer", ProducerStatus, problems)
        heartbeats = {name: _heartbeat(home, name, StreamStatus, problems) for name in JOBS}
        silent: dict[str, str] = {}
        ends = _ends(settings, silent, problems) if addresses.kafka else {}
        version = _table_version(settings, problems)
        loaded = _loaded(settings, silent, problems) if addresses.mongo else None
        services = _services(home, problems)
        silent |= {name: f"the {name} does not answer" for name, page in pages.items() if not page.result()}
    source = endpoints.source if endpoints else producer.get("source") if up is None else None
    reasons = waiting_for(source, _of_this_stack(home, producer, up), heartbeats, ends, version, loaded or {})
    problems += _note_silence(services, silent, home / "logs")
    dagster = [services[name] for name in ("daemon", "code-server") if name in services]
    problems += work_not_done(
        settings,
        version,
        loaded,
        dagster_down=any(part.state == "stopped" for part in dagster),
        began_at=max((part.started_at for part in dagster if part.started_at is not None), default=None),
    )
    streams = Streams(settings)
    given_up = streams.given_up()
    status = Status(
        source=source,
        source_note=endpoints.source_note if endpoints else None,
        kafka_bootstrap=addresses.kafka,
        mongo_uri=addresses.mongo,
        lakehouse=settings.lakehouse,
        dagster_url=endpoints.dagster_url if endpoints else None,
        board_url=endpoints.board_url if endpoints else None,
        up_pid=None if up is None else up.pid,
        producer=_producer(home, producer, problems),
        streams={
            name: _stream(streams, spec, heartbeats[name], ends, given_up.get(name), problems)
            for name, spec in JOBS.items()
        },
        load={collection: _collection(loaded, collection) for collection in COLLECTIONS.values()},
        services=services,
        drained=not reasons,
        waiting_for=reasons,
        problems=list(dict.fromkeys(problems)),
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
    if status.up_pid is not None:
        states |= dict.fromkeys(sorted(needed - set(states)), "not started yet")
    elif any(state != "stopped" for state in states.values()):
        states["tickhouse up"] = "gone: what ends is not started again. `tickhouse up` takes over"
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


def _ends(settings: OrchestrationSettings, silent: dict[str, str], problems: list[str]) -> Offsets:
    try:
        return Topics(settings.kafka_bootstrap, _KAFKA_SECONDS, librdkafka_security(settings)).end_offsets(TOPICS)
    except KafkaRefuses as error:
        problems.append(f"{error}")
    except KafkaAway as error:
        silent["kafka"] = f"{error}: start the stack with `tickhouse up`, or set TICKHOUSE_KAFKA_BOOTSTRAP"
    return {}


def _table_version(settings: OrchestrationSettings, problems: list[str]) -> TableVersion | None:
    try:
        return Lakehouse(settings.lakehouse).version(TABLE)
    except (DeltaError, OSError) as error:
        problems.append(f"the table {TABLE} in {settings.lakehouse} cannot be read: {error}")
        return None


def _gaps(settings: OrchestrationSettings, problems: list[str]) -> list[GapStatus]:
    try:
        return [GapStatus.model_validate(row) for row in gap_log.rows(settings.lakehouse)]
    except (DeltaError, OSError) as error:
        problems.append(f"the table {gap_log.NAME} in {settings.lakehouse} cannot be read: {error}")
        return []


def _loaded(settings: OrchestrationSettings, silent: dict[str, str], problems: list[str]) -> dict[str, Loaded] | None:
    uri = settings.mongo_uri.get_secret_value()
    try:
        store = MongoStore(uri, _MONGO_SECONDS)
        try:
            return store.loaded()
        finally:
            store.close()
    except ConnectionFailure as error:
        silent["mongod"] = f"MongoDB at {without_password(uri)} {fault(error)}"
    except PyMongoError as error:
        problems.append(f"MongoDB at {without_password(uri)} {fault(error)}")
    return None


def _collection(loaded: Mapping[str, Loaded] | None, collection: str) -> CollectionStatus:
    if loaded is None:
        return CollectionStatus(documents=None, delta_version=None)
    record = loaded.get(collection)
    return CollectionStatus(
        documents=record.documents if record else 0, delta_version=record.delta_version if record else None
    )


def _producer(home: Path, heartbeat: Mapping[str, Any], problems: list[str]) -> ProducerStatus:
    status = ProducerStatus.model_validate(_told(heartbeat, ProducerStatus))
    try:
        process = processes.recorded(home, "producer")
    except (processes.ProcessError, OSError) as error:
        problems.append(str(error))
        return status.model_copy(update={"state": "unknown", "pid": None})
    alive = process is not None and processes.alive(process)
    asleep = process is not None and alive and processes.suspended(process)
    return status.model_copy(
        update={
            "state": producer_state(heartbeat, process, alive=alive, suspended=asleep, now=time.time()),
            "pid": process.pid if process and alive else None,
        }
    )


def _of_this_stack(home: Path, heartbeat: Mapping[str, Any], up: psutil.Process | None) -> Mapping[str, Any]:
    """The producer's heartbeat, empty if it is of an earlier producer: what that sent may not be all there is now."""
    try:
        process = processes.recorded(home, "producer")
        if process is None:
            return heartbeat
        began_at = up.create_time() - processes.START_TIME_TOLERANCE_SECONDS if up is not None else 0.0
        return heartbeat if heartbeat.get("pid") == process.pid and process.create_time >= began_at else {}
    except (processes.ProcessError, OSError, psutil.Error):
        return {}


def producer_state(
    heartbeat: Mapping[str, Any], process: processes.Process | None, *, alive: bool, suspended: bool, now: float
) -> str:
    """How the producer is, by its heartbeat and its process.

    One without a record was started by hand, by another service manager perhaps: its heartbeat alone tells.
    """
    said = str(heartbeat.get("state", "stopped"))
    own = process is None or heartbeat.get("pid") == process.pid
    said_at = epoch_seconds(heartbeat["written_at"]) if own and "written_at" in heartbeat else 0.0
    moments = (said_at, process.create_time if process is not None else 0.0)
    # What was noted before the clock was set back would be fresh until the clock has passed it once more.
    fresh = any(now - moment < _FRESH_SECONDS and not ahead(moment, now) for moment in moments)
    if alive:
        if suspended:
            return "suspended"
        if not fresh:
            return "hung"
        return said if own else "starting"
    return "crashed" if said in ("running", "waiting") and (process is not None or not fresh) else said


def _stream(
    streams: Streams,
    spec: JobSpec,
    heartbeat: Mapping[str, Any],
    ends: Offsets,
    given_up: str | None,
    problems: list[str],
) -> StreamStatus:
    waiting = stream_lag(spec, heartbeat, ends)
    told = _told(heartbeat, StreamStatus) | {"lag": waiting, "archive_lag": archive_lag(spec, heartbeat, ends)}
    try:
        view, wanted = streams.observe(spec.name, waiting), streams.wanted(spec.name)
        process = processes.recorded(streams.home, spec.name) if view.pid is not None else None
    except (processes.ProcessError, OSError, KeyError, TypeError, ValueError) as error:
        problems.append(f"how the stream {spec.name} is cannot be told: {error}")
        return StreamStatus.model_validate(told | {"state": "unknown"})
    left_alone = given_up is not None and view.state in ("crashed", "hung")
    state: str = "given_up" if left_alone else view.state
    if state in ("running", "starting") and process is not None and processes.suspended(process):
        state = "suspended"
    return StreamStatus.model_validate(
        told
        | {
            "state": state,
            "pid": view.pid,
            "wanted": wanted,
            "error": given_up if left_alone else view.error,
        }
    )


def _told(heartbeat: Mapping[str, Any], model: type[BaseModel]) -> dict[str, Any]:
    return {field: heartbeat[field] for field in model.model_fields if heartbeat.get(field) is not None}


def _heartbeat(home: Path, name: str, model: type[BaseModel], problems: list[str]) -> dict[str, Any]:
    """The last heartbeat, empty where there is none; one that says something else than it should is a problem."""
    try:
        heartbeat = processes.read_heartbeat(home, name) or {}
        model.model_validate({"state": "unknown"} | _told(heartbeat, model))
        for query in heartbeat.get("queries", {}):
            offsets_of(heartbeat, query)
        if "written_at" in heartbeat:
            epoch_seconds(heartbeat["written_at"])
    except (OSError, AttributeError, TypeError, ValueError):
        path = home / "run" / f"{name}.heartbeat.json"
        problems.append(f"{path} cannot be read: see to it that it can, or remove it, it is written anew")
        return {}
    return heartbeat


def _services(home: Path, problems: list[str]) -> dict[str, ServiceStatus]:
    services = {}
    for name in processes.recorded_names(home):
        if name in JOBS:
            continue
        try:
            process = processes.recorded(home, name)
        except (processes.ProcessError, OSError) as error:
            problems.append(str(error))
            services[name] = ServiceStatus(state="unknown", pid=None)
            continue
        if process is not None and processes.alive(process):
            state = "suspended" if processes.suspended(process) else "running"
            services[name] = ServiceStatus(state=state, pid=process.pid, started_at=process.create_time)
        else:
            services[name] = ServiceStatus(state="stopped", pid=None)
    return services


class _Addresses(NamedTuple):
    """Where Kafka and MongoDB are, None as long as nothing has an address; `mongo` without its password."""

    kafka: str | None
    mongo: str | None


def _addresses(settings: OrchestrationSettings, endpoints: Endpoints | None, starting: bool) -> _Addresses:
    """What was named, or chosen by the stack that is there now. A default counts for parts that somebody has started.

    While a stack is `starting`, what `endpoints` says is of the one before.
    """
    uri = settings.mongo_uri.get_secret_value()
    named = settings.model_fields_set
    used = any((settings.home / "run").glob("*.heartbeat.json")) and not starting
    old = endpoints if starting else None
    kafka = ("kafka_bootstrap" in named and not (old and old.kafka_bootstrap == settings.kafka_bootstrap)) or used
    mongo = ("mongo_uri" in named and not (old and old.mongo_uri == uri)) or used
    return _Addresses(settings.kafka_bootstrap if kafka else None, without_password(uri) if mongo else None)


def _up(home: Path, problems: list[str]) -> psutil.Process | None:
    """The `tickhouse up` of that home."""
    try:
        pid = holder(home)
        return None if pid is None else psutil.Process(pid)
    except psutil.NoSuchProcess:
        return None
    except (AlreadyRunning, OSError) as error:
        problems.append(f"whether a stack runs in {home} cannot be told: {error}")
        return None


def _written_since(path: Path, process: psutil.Process) -> bool:
    """Whether a file was written in the life of a process."""
    try:
        return path.stat().st_mtime >= process.create_time()
    except (OSError, psutil.Error):
        return False


def _note_silence(services: dict[str, ServiceStatus], silent: Mapping[str, str], logs: Path) -> list[str]:
    """What to say of the services that do not answer; those whose process runs all the same are noted as hung."""
    told = []
    for name, sentence in silent.items():
        service = services.get(name)
        if service is None or service.state not in ("running", "suspended"):
            told.append(sentence)
        elif service.state == "running" and time.time() - (service.started_at or 0.0) < _STARTING_SECONDS:
            services[name] = service.model_copy(update={"state": "starting"})
        else:
            state = "hung" if service.state == "running" else service.state
            services[name] = service.model_copy(update={"state": state})
            told.append(f"{name} runs, as process {service.pid}, and does not answer: see {logs / name}.log")
    return told
