"""The assets: the price topic, the tables that streams feed, the collections that the load fills.

Here: what each asset is and what materialising it does, by calling the domain modules.
Not here: when it happens by itself (`orchestration.sensors`), how it is done (`orchestration.streams`, `.mongo_load`).
"""

import datetime
from collections.abc import Iterator
from typing import Any, Literal

import dagster as dg
from pydantic import Field
from pymongo.errors import PyMongoError

from orchestration import checks
from orchestration.kafka import KafkaAway, Topics
from orchestration.lakehouse import Lakehouse
from orchestration.mongo_load import COLLECTIONS, LoadError, fault, load
from orchestration.resources import LakehouseResource, MongoResource, StreamsResource, TopicsResource
from orchestration.status import stream_lag
from orchestration.streams import StreamError, Streams
from spark_jobs.contract import WINDOWS
from spark_jobs.jobs import JOBS, TOPICS, JobSpec

OWNERS = ["team:market-data"]
TOPIC = "btc_price"
LOAD_GROUP = "mongodb"
COLLECTION_ASSETS = {window: f"zscore_{window}" for window in WINDOWS}
"""Window to the asset of its collection."""

_DESCRIPTIONS = {
    "prices": "Every valid message of the price topic, late and repeated ones included, by its Kafka coordinates.",
    "rejects": "Every message that is not a tick, as it came, with the reason.",
    "moving_stats": "Mean, sample deviation and count of six sliding windows, one row per distinct on-time tick.",
    "zscores": "How many standard deviations the price is from each window's mean, one row per distinct on-time tick.",
    "higher": "Seconds from each tick to the first strictly higher price within 20 s.",
    "lower": "Seconds from each tick to the first strictly lower price within 20 s.",
}
_UPSTREAM = {"zscores": [TOPIC, "moving_stats"]}
_FRESHNESS = dg.FreshnessPolicy.time_window(
    fail_window=datetime.timedelta(days=1), warn_window=datetime.timedelta(hours=1)
)

topic_spec = dg.AssetSpec(
    TOPIC,
    group_name="ingest",
    kinds={"kafka"},
    owners=OWNERS,
    description="The topic btc-price: one message per observed price, from the exchange or a replay.",
    metadata={"topic": "btc-price"},
)


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


def stream_asset(spec: JobSpec) -> dg.AssetsDefinition:
    """The tables of one stream job, materialised together."""
    specs = [
        dg.AssetSpec(
            table,
            deps=_UPSTREAM.get(table, [TOPIC]),
            group_name="streams",
            kinds={"pyspark", "deltalake", "kafka"},
            owners=OWNERS,
            description=_DESCRIPTIONS[table],
            metadata={"stream": spec.name, "topic": spec.archives.get(table, "none")},
            freshness_policy=_FRESHNESS,
        )
        for table in spec.tables
    ]

    @dg.multi_asset(name=f"{spec.name}_stream", specs=specs, op_tags={"stream": spec.name})
    def materialise(
        context: dg.AssetExecutionContext,
        config: StreamConfig,
        streams: StreamsResource,
        lakehouse: LakehouseResource,
    ) -> Iterator[dg.MaterializeResult[Any]]:
        processes = streams.get()
        try:
            if config.trigger == "continuous":
                view = processes.launch(spec.name)
            else:
                view = processes.run_available(spec.name, config.timeout_seconds)
        except StreamError as error:
            raise dg.Failure(str(error), allow_retries=False) from error
        context.log.info("%s: %s, process %s", spec.name, view.state, view.pid)
        process = {"process": view.pid or "ended", "log": dg.MetadataValue.path(str(processes.log_path(spec.name)))}
        for table in spec.tables:
            yield dg.MaterializeResult(asset_key=table, metadata=table_metadata(lakehouse.get(), table) | process)

    return materialise


def table_metadata(lakehouse: Lakehouse, table: str) -> dict[str, Any]:
    """What there is to say of a table's newest version; it must exist."""
    found = lakehouse.version(table)
    if found is None:
        raise dg.Failure(f"there is no table {lakehouse.table_uri(table)}", allow_retries=False)
    content = lakehouse.content(table, found.version)
    metadata: dict[str, Any] = {
        "dagster/row_count": content.rows,
        "dagster/uri": lakehouse.table_uri(table),
        "dagster/column_schema": dg.TableSchema(
            [dg.TableColumn(name, kind, description=text) for name, kind, text in lakehouse.columns(table)]
        ),
        "delta_version": found.version,
        "size_bytes": content.size_bytes,
    }
    if content.last_event_time is not None:
        metadata["last_event_time"] = dg.MetadataValue.timestamp(content.last_event_time)
    return metadata


@dg.multi_asset(
    name="load_collections",
    can_subset=True,
    specs=[
        dg.AssetSpec(
            asset,
            deps=["zscores"],
            group_name=LOAD_GROUP,
            kinds={"mongodb", "python"},
            owners=OWNERS,
            skippable=False,
            description=f"The collection {COLLECTIONS[window]} in the database btc: one document per tick with the "
            f"z-score of the {window} window. Loading is idempotent.",
            metadata={"collection": COLLECTIONS[window], "window": window},
            freshness_policy=_FRESHNESS,
        )
        for window, asset in COLLECTION_ASSETS.items()
    ],
)
def collections(
    context: dg.AssetExecutionContext, lakehouse: LakehouseResource, mongo: MongoResource
) -> Iterator[dg.MaterializeResult[Any]]:
    """Load the rows of `zscores` that are new to each selected collection, reading them once."""
    selected = [
        window for window, asset in COLLECTION_ASSETS.items() if dg.AssetKey(asset) in context.selected_asset_keys
    ]
    with mongo.open() as store:
        try:
            done = load(lakehouse.get(), store, selected)
        except LoadError as error:
            raise dg.Failure(str(error), allow_retries=False) from error
        except PyMongoError as error:
            raise dg.Failure(f"MongoDB {fault(error)}", allow_retries=False) from error
        for window_load in done:
            metadata: dict[str, Any] = {
                "dagster/row_count": window_load.loaded.documents,
                "rows_loaded": window_load.rows,
                "delta_version": window_load.loaded.delta_version,
                "collection": COLLECTIONS[window_load.window],
            }
            if window_load.last_event_time is not None:
                metadata["last_event_time"] = dg.MetadataValue.timestamp(window_load.last_event_time)
            yield dg.MaterializeResult(asset_key=COLLECTION_ASSETS[window_load.window], metadata=metadata)


@dg.multi_asset_check(name="health", specs=checks.check_specs(), can_subset=True)
def health(
    context: dg.AssetCheckExecutionContext, streams: StreamsResource, topics: TopicsResource
) -> Iterator[dg.AssetCheckResult]:
    """Run the health checks now."""
    outcomes = look(streams.get(), topics.get())
    for key in context.selected_asset_check_keys:
        check = checks.CheckKey(key.asset_key.to_user_string(), key.name)
        yield checks.result(check, outcomes[check])


def look(streams: Streams, topics: Topics) -> dict[checks.CheckKey, checks.Outcome]:
    """The outcome of every check, now."""
    try:
        ends = topics.end_offsets(TOPICS)
    except KafkaAway:
        ends = {}  # the lag checks say so
    given_up = streams.given_up()
    outcomes: dict[checks.CheckKey, checks.Outcome] = {}
    for spec in JOBS.values():
        lag = stream_lag(spec, streams.observe(spec.name).heartbeat, ends)
        outcomes |= checks.judge(
            streams.observe(spec.name, lag),
            stream=spec.name,
            wanted=streams.wanted(spec.name),
            lag=lag,
            given_up=given_up.get(spec.name),
        )
    return outcomes


def all_assets() -> list[dg.AssetsDefinition | dg.AssetSpec]:
    """Every asset of the pipeline."""
    return [topic_spec, *(stream_asset(spec) for spec in JOBS.values()), collections]
