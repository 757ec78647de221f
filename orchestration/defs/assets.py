"""The assets: the price topic, the tables that streams feed, the collections that the load fills."""

import time
from collections.abc import Iterator
from typing import Any, Literal

import dagster as dg
from dagster._core.storage.tags import SENSOR_NAME_TAG
from pydantic import Field
from pymongo.errors import PyMongoError

from orchestration.defs.asset_events import board_metadata, log_metadata, picture_metadata, table_metadata
from orchestration.defs.asset_specs import (
    COLLECTION_ASSETS,
    collection_specs,
    exchange_spec,
    table_specs,
    topic_spec,
)
from orchestration.defs.reporting import event_of
from orchestration.defs.resources import LakehouseResource, MongoResource, StreamsResource
from orchestration.monitoring import last_seen
from orchestration.serving.load import COLLECTIONS, LoadError, fault, load
from orchestration.settings import OrchestrationSettings
from orchestration.supervision.streams import StreamError
from tickhouse.contract.topology import JOBS, JobSpec


class StreamConfig(dg.Config):
    """How a stream asset is materialised."""

    trigger: Literal["continuous", "available_now"] = Field(
        "continuous",
        description="continuous: start the stream as a process of its own and return once it is at work. "
        "available_now: process what the topics hold now, and end.",
    )
    timeout_seconds: float = Field(
        600.0, gt=0, description="How long available_now may take before it is stopped and the run fails."
    )


class LoadConfig(dg.Config):
    """How collections are loaded."""

    rebuild: bool = Field(
        False,
        description="Load all of the table anew, documents included that retention had removed and that the table "
        "still has, instead of what is new.",
    )


def stream_asset(spec: JobSpec, settings: OrchestrationSettings) -> dg.AssetsDefinition:
    """The tables of one stream job, materialised together."""

    @dg.multi_asset(name=f"{spec.name}_stream", specs=table_specs(spec, settings), op_tags={"stream": spec.name})
    def materialise(
        context: dg.AssetExecutionContext,
        config: StreamConfig,
        streams: StreamsResource,
        lakehouse: LakehouseResource,
    ) -> Iterator[dg.MaterializeResult[Any]]:
        processes = streams.get(context.log.info)
        try:
            if config.trigger == "continuous":
                view = processes.launch(spec.name)
            else:
                view = processes.run_available(spec.name, config.timeout_seconds)
        except StreamError as error:
            raise dg.Failure(str(error), metadata=log_metadata(processes, spec.name), allow_retries=False) from error
        left = f"{view.state} as process {view.pid}" if view.pid else f"{view.state}: it has done what there was"
        context.log.info("%s: %s; its log is %s", spec.name, left, processes.log_path(spec.name))
        process = {"process": view.pid or "ended", **log_metadata(processes, spec.name)}
        tables = lakehouse.get()
        shown = picture_metadata(tables, context.instance, context.log) | board_metadata(lakehouse.settings())
        for table in spec.tables:
            yield dg.MaterializeResult(asset_key=table, metadata=table_metadata(tables, table) | process | shown)

    return materialise


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


def all_assets(settings: OrchestrationSettings) -> list[dg.AssetsDefinition | dg.AssetSpec]:
    """Every asset of the pipeline, with links to what belongs to the home of `settings`."""
    return [
        exchange_spec(settings),
        topic_spec(settings),
        *(stream_asset(spec, settings) for spec in JOBS.values()),
        collections_asset(settings),
    ]
