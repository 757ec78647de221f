"""The assets: the price topic, the tables that streams feed, the collections that the load fills."""

from collections.abc import Iterator
from typing import Any, Literal

import dagster as dg
from pydantic import Field

from orchestration.defs.asset_events import board_metadata, log_metadata, picture_metadata, table_metadata
from orchestration.defs.asset_specs import exchange_spec, table_specs, topic_spec
from orchestration.defs.load import collections_asset
from orchestration.defs.resources import LakehouseResource, StreamsResource
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


def all_assets(settings: OrchestrationSettings) -> list[dg.AssetsDefinition | dg.AssetSpec]:
    """Every asset of the pipeline, with links to what belongs to the home of `settings`."""
    return [
        exchange_spec(settings),
        topic_spec(settings),
        *(stream_asset(spec, settings) for spec in JOBS.values()),
        collections_asset(settings),
    ]
