"""The load of MongoDB in Dagster: the assets, the job and the sensor that requests it."""

import time
from collections.abc import Iterable, Iterator
from typing import Any

import dagster as dg
from dagster._core.storage.tags import SENSOR_NAME_TAG
from pydantic import Field
from pymongo.errors import PyMongoError

from orchestration.defs.asset_events import board_metadata, event_of, picture_metadata
from orchestration.defs.asset_specs import LOAD_GROUP, collection_specs
from orchestration.defs.resources import LakehouseResource, MongoResource
from orchestration.defs.run_processes import location_of, unfinished_runs
from orchestration.monitoring import last_seen
from orchestration.serving.load import load
from orchestration.serving.load_policy import LOAD_POLICY, LoadDecision, decide_load
from orchestration.serving.mongo import COLLECTION_ASSETS, COLLECTIONS, TABLE, LoadError, fault
from orchestration.settings import OrchestrationSettings

load_mongodb = dg.define_asset_job(
    "load_mongodb",
    selection=dg.AssetSelection.groups(LOAD_GROUP),
    description="Load the new rows of zscores into the collections of MongoDB.",
)


class LoadConfig(dg.Config):
    """How collections are loaded."""

    rebuild: bool = Field(
        False,
        description="Load all of the table anew, documents included that retention had removed and that the table "
        "still has, instead of what is new.",
    )


def collections_asset(settings: OrchestrationSettings) -> dg.AssetsDefinition:
    """The collections, materialised together or some of them."""

    @dg.multi_asset(name="load_collections", can_subset=True, specs=collection_specs(settings))
    def collections(
        context: dg.AssetExecutionContext, config: LoadConfig, lakehouse: LakehouseResource, mongo: MongoResource
    ) -> Iterator[dg.MaterializeResult[Any]]:
        """Load the rows of `zscores` that are new to each selected collection, reading them once."""
        selected = [
            window for window, asset in COLLECTION_ASSETS.items() if dg.AssetKey(asset) in context.selected_asset_keys
        ]
        home = lakehouse.settings().home
        last_seen.note(home, last_seen.LOAD, "a load begins")
        with mongo.open(last_seen.noting(home, last_seen.LOAD)) as store:
            try:
                for window in selected if config.rebuild else ():
                    store.forget(window)
                done = load(lakehouse.get(), store, selected)
            except LoadError as error:
                raise dg.Failure(str(error), allow_retries=False) from error
            except PyMongoError as error:
                raise dg.Failure(f"MongoDB {fault(error)}", allow_retries=False) from error
            shown = _shown(context, lakehouse)
            for window_load in done:
                metadata: dict[str, Any] = {
                    **shown,
                    "dagster/row_count": window_load.loaded.documents,
                    "rows_loaded": window_load.rows,
                    "delta_version": window_load.loaded.delta_version,
                    "collection": COLLECTIONS[window_load.window],
                }
                if window_load.last_event_time is not None:
                    metadata["last_event_time"] = dg.MetadataValue.timestamp(window_load.last_event_time)
                asset = COLLECTION_ASSETS[window_load.window]
                # A load by hand is a materialisation in any case.
                now = time.time()
                if _by_sensor(context) and isinstance(
                    event := event_of(context.instance, asset, metadata, now, now), dg.AssetObservation
                ):
                    context.log_event(event)
                else:
                    yield dg.MaterializeResult(asset_key=asset, metadata=metadata)

    return collections


def _shown(context: dg.AssetExecutionContext, lakehouse: LakehouseResource) -> dict[str, Any]:
    """What a load by hand shows: those that a sensor requests are too many for a picture each."""
    if _by_sensor(context):
        return {}
    return picture_metadata(lakehouse.get(), context.instance, context.log) | board_metadata(lakehouse.settings())


def _by_sensor(context: dg.AssetExecutionContext) -> bool:
    return SENSOR_NAME_TAG in context.run.tags


LOAD_SECONDS = 14
LOAD_RUN_SECONDS = 600.0
"""A run of the load that is older than this holds nothing up any more. One that does not hang but is slow does no
harm beside a second one.
"""


def load_under_way(records: Iterable[dg.RunRecord], now: float) -> bool:
    """Whether an unfinished run loads MongoDB, in whatever unfinished status it is."""
    return any(
        record.dagster_run.job_name == load_mongodb.name
        and now - record.create_timestamp.timestamp() < LOAD_RUN_SECONDS
        for record in records
    )


def load_failures(instance: dg.DagsterInstance) -> list[float]:
    """When the loads since the last good one failed, in epoch seconds, oldest first; as many as matter."""
    finished = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE]
    records = instance.get_run_records(
        dg.RunsFilter(job_name=load_mongodb.name, statuses=finished), limit=LOAD_POLICY.limit
    )
    failures = []
    for record in records:
        if record.dagster_run.status == dg.DagsterRunStatus.SUCCESS:
            break
        failures.append(record.end_time or record.update_timestamp.timestamp())
    return failures[::-1]


@dg.sensor(
    target=load_mongodb,
    minimum_interval_seconds=LOAD_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Loads new z-scores into MongoDB.",
)
def load_new_zscores(
    context: dg.SensorEvaluationContext, lakehouse: LakehouseResource, mongo: MongoResource
) -> dg.SensorResult:
    """One comparison of the table's version with what MongoDB holds."""
    decision = _decide_load(context, lakehouse, mongo)
    last_seen.note(lakehouse.settings().home, last_seen.LOAD_SENSOR, decision.reason)
    if not decision.request:
        return dg.SensorResult(skip_reason=decision.reason)
    context.log.info("loading: %s", decision.reason)
    return dg.SensorResult(run_requests=[dg.RunRequest(run_key=f"load@{time.time():.3f}")])


def _decide_load(
    context: dg.SensorEvaluationContext, lakehouse: LakehouseResource, mongo: MongoResource
) -> LoadDecision:
    try:
        with mongo.open() as store:
            loaded = store.loaded()
    except PyMongoError as error:
        return LoadDecision(False, f"MongoDB {fault(error)}; nothing is attempted until then")
    now = time.time()
    return decide_load(
        lakehouse.get().version(TABLE),
        loaded,
        in_flight=load_under_way(unfinished_runs(context.instance, location_of(context)).records, now),
        failures=load_failures(context.instance),
        now=now,
    )
