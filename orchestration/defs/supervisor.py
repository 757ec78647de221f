"""The sensors: watching the streams, and loading MongoDB while there are new z-scores.

Everything is decided from what is there and from the cursor, never from memory: a code location can be reloaded at any
time. The load has a sensor of its own rather than an AutomationCondition, because what is to be loaded is known by
comparing two records outside Dagster (the table's version and what MongoDB says it holds), because a failed last load
must be repeated although nothing new comes, and because a condition is evaluated only every 30 seconds.
"""

import time
from collections.abc import Iterable, Mapping
from typing import Any

import dagster as dg

from orchestration.defs import checks
from orchestration.defs.asset_events import table_metadata
from orchestration.defs.checks import live_now
from orchestration.defs.load import load_new_zscores
from orchestration.defs.observations import observations
from orchestration.defs.replay import replay
from orchestration.defs.resources import LakehouseResource, StreamsResource, TopicsResource
from orchestration.defs.run_cleanup import tidy_runs
from orchestration.defs.run_processes import location_of, unfinished_runs
from orchestration.defs.stream_jobs import STREAM_JOBS, launch_streams, restart_streams
from orchestration.defs.supervisor_cursor import OBSERVE_SECONDS, Memory, check_is_news, note_versions
from orchestration.monitoring import health_checks, last_seen
from orchestration.supervision.lag import KafkaAway, Offsets, archive_lag, stream_lag
from orchestration.supervision.replay import end_left_behind
from orchestration.supervision.restart_policy import History
from orchestration.supervision.stream_health import StreamSnapshot, decide_stream
from orchestration.supervision.streams import Streams
from tickhouse.contract.topology import JOBS, TABLES, TOPICS

# The daemon looks for due sensors every five seconds: one due exactly then is often missed by a moment, and comes five
# seconds late. So each is due a second before.
SUPERVISOR_SECONDS = 4
STREAM_RUN_SECONDS = 300.0
"""A run of a stream job that is older than this holds nothing up any more: it takes at most two minutes, so that it
hangs, or its process cannot be seen from here. One whose process is gone is known at once (`run_processes`)."""

_LAUNCH_OPS = {"launch_streams": "launch", "stop_streams": "stop", "restart_streams": "restart"}


def streams_under_way(records: Iterable[dg.RunRecord], now: float) -> set[str]:
    """Streams that an unfinished run is about, in whatever unfinished status it is."""
    under_way: set[str] = set()
    for record in records:
        if now - record.create_timestamp.timestamp() < STREAM_RUN_SECONDS:
            under_way |= _streams_of(record.dagster_run)
    return under_way


def _streams_of(run: dg.DagsterRun) -> set[str]:
    op = _LAUNCH_OPS.get(run.job_name)
    if op is not None:
        run_config: Mapping[str, Any] = run.run_config
        config = run_config.get("ops", {}).get(op, {}).get("config", {})
        return set(config.get("streams", JOBS))
    keys = {key.to_user_string() for key in run.asset_selection or ()}
    return {spec.name for spec in JOBS.values() if keys & set(spec.tables)}


@dg.sensor(
    jobs=list(STREAM_JOBS),
    minimum_interval_seconds=SUPERVISOR_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Keeps the wanted streams running, and observes their tables, their lag and their health.",
)
def supervisor(
    context: dg.SensorEvaluationContext,
    streams: StreamsResource,
    topics: TopicsResource,
    lakehouse: LakehouseResource,
) -> dg.SensorResult:
    """One look at all streams."""
    now = time.time()
    memory = _remembered(context)
    ends, kafka_away = _ends(topics)
    processes_ = streams.get()
    unfinished = unfinished_runs(context.instance, location_of(context))
    for run in unfinished.ended:
        context.log.warning("the process of run %s (%s) is gone: reported as failed", run.run_id, run.job_name)
        _end_left_behind(context, run, processes_)
    under_way = streams_under_way(unfinished.records, now)
    sights = _look(processes_, ends, under_way)
    requests = _requests(context, processes_, sights, memory, now, kafka_away)
    tables = lakehouse.get()
    found = {table: version for table in TABLES if (version := tables.version(table)) is not None}
    note_versions(found, memory, now)
    events: list[Any] = []
    if now - memory.observed_at >= OBSERVE_SECONDS:
        told = {table: table_metadata(tables, table) for table in found}
        events += observations(streams.settings(), sights, ends, told, memory, context.instance, now)
    events += _evaluations(sights, memory, live_now(streams.settings()), now)
    states = ", ".join(f"{name} {sight.view.state}" for name, sight in sights.items())
    last_seen.note(streams.settings().home, last_seen.SUPERVISOR, kafka_away or states)
    return dg.SensorResult(
        run_requests=requests,
        skip_reason=None if requests else f"nothing to start: {kafka_away or states}",
        asset_events=events,
        cursor=memory.to_cursor(),
    )


def _end_left_behind(context: dg.SensorEvaluationContext, run: dg.DagsterRun, streams: Streams) -> None:
    """End the processes that a killed run was to wait for, and to end."""
    if run.job_name == replay.name and (pid := end_left_behind(streams.home)) is not None:
        context.log.warning("ended the producer of that run, process %d", pid)
    for name in _streams_of(run):
        view = streams.observe(name)
        if view.pid is not None and view.heartbeat.get("trigger") == "available_now":
            context.log.warning("%s was to process what there is for that run: ending process %d", name, view.pid)
            streams.end(name)


def _remembered(context: dg.SensorEvaluationContext) -> Memory:
    try:
        return Memory.from_cursor(context.cursor)
    except ValueError as error:
        context.log.warning("starting without memory of earlier attempts: %s", error)
        return Memory()


def _ends(topics: TopicsResource) -> tuple[Offsets, str | None]:
    try:
        return topics.get().end_offsets(TOPICS), None
    except KafkaAway as error:
        return {}, str(error)


def _look(streams: Streams, ends: Offsets, under_way: set[str]) -> dict[str, StreamSnapshot]:
    sights = {}
    for name, spec in JOBS.items():
        heartbeat = streams.observe(name).heartbeat
        waiting = stream_lag(spec, heartbeat, ends)
        sights[name] = StreamSnapshot(
            streams.observe(name, waiting),
            streams.wanted(name),
            name in under_way,
            waiting,
            archive_lag(spec, heartbeat, ends),
        )
    return sights


def _requests(
    context: dg.SensorEvaluationContext,
    streams: Streams,
    sights: Mapping[str, StreamSnapshot],
    memory: Memory,
    now: float,
    kafka_away: str | None,
) -> list[dg.RunRequest]:
    """Run requests for what is to be started; one for all that are down, because a run has its own cost."""
    down: list[str] = []
    hung: list[str] = []
    for name, sight in sights.items():
        decision = decide_stream(sight, memory.histories.get(name, History()), now, kafka_away)
        memory.histories[name] = decision.history
        if decision.action != "nothing":
            context.log.info("%s is %s: %s, %s", name, sight.view.state, decision.action, decision.reason)
        if decision.action == "start":
            (hung if sight.view.state == "hung" else down).append(name)
    streams.note_given_up({name: history.given_up for name, history in memory.histories.items() if history.given_up})
    requests = []
    for job, names in ((launch_streams, down), (restart_streams, hung)):
        if names:
            config = {"streams": names, "only_wanted": True}
            requests.append(
                dg.RunRequest(
                    # Each attempt has a key of its own: a repeated key would be taken for a request already met.
                    run_key=f"{','.join(names)}@{now:.3f}",
                    job_name=job.name,
                    run_config={"ops": {_LAUNCH_OPS[job.name]: {"config": config}}},
                    tags={"tickhouse/streams": "-".join(names)},
                )
            )
    return requests


def _evaluations(
    sights: Mapping[str, StreamSnapshot], memory: Memory, live: float | None, now: float
) -> Iterable[dg.AssetCheckEvaluation]:
    for name, sight in sights.items():
        # A version counts from when it was seen: that is a few seconds after it came.
        committed = {table: memory.tables[table].at for table in JOBS[name].tables if table in memory.tables}
        facts = health_checks.StreamFacts(
            sight.view, sight.wanted, sight.lag, sight.archive_lag, memory.histories[name].given_up, committed
        )
        for key, outcome in health_checks.judge(name, facts, live, now).items():
            label = f"{key.asset}:{key.name}"
            if check_is_news(label, outcome.passed, outcome.description, memory, now):
                memory.checks[label] = (outcome.passed, outcome.description, now)
                yield checks.evaluation(key, outcome)


ALL_SENSORS = (supervisor, load_new_zscores, tidy_runs)
