"""The checks as Dagster runs them: those of the streams' health, and those that read tables and collections."""

import time
from collections.abc import Collection, Iterator

import dagster as dg
from pymongo.errors import PyMongoError

from orchestration.defs.resources import LakehouseResource, MongoResource, StreamsResource, TopicsResource
from orchestration.lakehouse.tables import Lakehouse
from orchestration.local import processes
from orchestration.monitoring import health_checks
from orchestration.monitoring.check_schedule import MOMENTS
from orchestration.monitoring.health_checks import CHECKS, WARN, CheckKey, Outcome
from orchestration.monitoring.table_check_queries import check_table, compare
from orchestration.monitoring.table_checks import TABLE_CHECKS
from orchestration.serving.mongo import COLLECTION_ASSETS, fault
from orchestration.settings import OrchestrationSettings
from orchestration.supervision.lag import KafkaAway, Topics, archive_lag, stream_lag
from orchestration.supervision.streams import Streams
from tickhouse.contract.topology import JOBS, TOPICS


def table_check_specs() -> list[dg.AssetCheckSpec]:
    """The checks as Dagster knows them."""
    return [
        dg.AssetCheckSpec(key.name, asset=dg.AssetKey(key.asset), description=f"{text}\n\nEvaluated {MOMENTS}.")
        for key, text in TABLE_CHECKS.items()
    ]


def check_specs() -> list[dg.AssetCheckSpec]:
    """The checks as Dagster knows them."""
    return [dg.AssetCheckSpec(key.name, asset=dg.AssetKey(key.asset), description=text) for key, text in CHECKS.items()]


def evaluation(key: CheckKey, outcome: Outcome) -> dg.AssetCheckEvaluation:
    """An outcome as a runless event."""
    return dg.AssetCheckEvaluation(
        asset_key=dg.AssetKey(key.asset),
        check_name=key.name,
        passed=outcome.passed,
        metadata=outcome.metadata,
        severity=dg.AssetCheckSeverity(outcome.severity),
        description=outcome.description,
    )


def result(key: CheckKey, outcome: Outcome) -> dg.AssetCheckResult:
    """An outcome as the result of a check that was run."""
    return dg.AssetCheckResult(
        asset_key=dg.AssetKey(key.asset),
        check_name=key.name,
        passed=outcome.passed,
        metadata=outcome.metadata,
        severity=dg.AssetCheckSeverity(outcome.severity),
        description=outcome.description,
    )


WINDOW_OF = {asset: window for window, asset in COLLECTION_ASSETS.items()}


@dg.multi_asset_check(name="health", specs=check_specs(), can_subset=True)
def health(
    context: dg.AssetCheckExecutionContext,
    streams: StreamsResource,
    topics: TopicsResource,
    lakehouse: LakehouseResource,
) -> Iterator[dg.AssetCheckResult]:
    """Run the health checks now."""
    outcomes = look(streams.get(), topics.get(), lakehouse.get(), live_now(streams.settings()))
    for key in context.selected_asset_check_keys:
        check = CheckKey(key.asset_key.to_user_string(), key.name)
        yield result(check, outcomes[check])


def live_now(settings: OrchestrationSettings) -> float | None:
    """Since when a live source has been sending, in epoch seconds; None when none does."""
    producer = processes.read_heartbeat(settings.home, "producer") or {}
    process = processes.recorded(settings.home, "producer")
    return health_checks.live_since(producer, process.create_time if process else None, time.time())


def look(streams: Streams, topics: Topics, lakehouse: Lakehouse, live: float | None) -> dict[CheckKey, Outcome]:
    """The outcome of every health check, now."""
    try:
        ends = topics.end_offsets(TOPICS)
    except KafkaAway:
        ends = {}  # the lag checks say so
    given_up = streams.given_up()
    outcomes: dict[CheckKey, Outcome] = {}
    for name, spec in JOBS.items():
        heartbeat = streams.observe(name).heartbeat
        lag = stream_lag(spec, heartbeat, ends)
        committed = {table: lakehouse.committed_at(table) for table in spec.tables}
        facts = health_checks.StreamFacts(
            streams.observe(name, lag),
            streams.wanted(name),
            lag,
            archive_lag(spec, heartbeat, ends),
            given_up.get(name),
            {table: moment.timestamp() for table, moment in committed.items() if moment is not None},
        )
        outcomes |= health_checks.judge(name, facts, live, time.time())
    return outcomes


@dg.multi_asset_check(name="table_checks", specs=table_check_specs(), can_subset=True)
def table_content(
    context: dg.AssetCheckExecutionContext, lakehouse: LakehouseResource, mongo: MongoResource
) -> Iterator[dg.AssetCheckResult]:
    """Read the last hour of the selected tables and collections, and judge it."""
    selected = [CheckKey(key.asset_key.to_user_string(), key.name) for key in context.selected_asset_check_keys]
    outcomes = look_into(lakehouse, mongo, selected)
    for key in selected:
        context.log.info("%s %s: %s", key.asset, key.name, outcomes[key].description)
        yield result(key, outcomes[key])


def look_into(
    lakehouse: LakehouseResource, mongo: MongoResource, selected: Collection[CheckKey]
) -> dict[CheckKey, Outcome]:
    """The outcome of the selected checks of tables and collections, now; there may be others of the same tables."""
    settings = lakehouse.settings()
    live = live_now(settings)
    step = settings.step_ms / 1_000 if live is not None else None
    outcomes: dict[CheckKey, Outcome] = {}
    for table in dict.fromkeys(key.asset for key in selected if key.asset not in WINDOW_OF):
        outcomes |= check_table(lakehouse.get(), table, step, live)
    assets = [key.asset for key in selected if key.asset in WINDOW_OF]
    compared = _compared(lakehouse.get(), mongo, [WINDOW_OF[asset] for asset in assets])
    return outcomes | {CheckKey(asset, "equals_table"): compared[WINDOW_OF[asset]] for asset in assets}


def _compared(lakehouse: Lakehouse, mongo: MongoResource, windows: list[str]) -> dict[str, Outcome]:
    if not windows:
        return {}
    try:
        with mongo.open() as store:
            return compare(lakehouse, store, windows)
    except PyMongoError as error:
        return dict.fromkeys(windows, Outcome(False, f"MongoDB {fault(error)}", WARN))


check_tables = dg.define_asset_job(
    "check_tables",
    selection=dg.AssetSelection.checks(table_content),
    description="Check the last hour of every table and collection: columns, duplicates, gaps, z-scores, equality. "
    "Needs no configuration, changes nothing.",
)
