"""The jobs: launch, stop and restart streams, load MongoDB, and maintain the tables.

Run configuration of the three stream jobs, all streams when left out:

    ops: {launch: {config: {streams: [moving, zscore]}}}      # or stop:, restart:

and of the maintenance, all tables when left out:

    ops: {maintain: {config: {tables: [zscores], mongo_retention_days: 30, dry_run: true}}}
"""

from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor

import dagster as dg
from deltalake.exceptions import DeltaError
from pydantic import Field, field_validator
from pymongo.errors import PyMongoError

from orchestration.defs.asset_events import log_metadata
from orchestration.defs.asset_specs import LOAD_GROUP
from orchestration.defs.resources import LakehouseResource, MongoResource, StreamsResource
from orchestration.lakehouse.maintenance import (
    LEAST_RETENTION_DAYS,
    NOBODY,
    Maintenance,
    MaintenanceError,
    Policy,
    Reader,
)
from orchestration.serving.cutoffs import cut_text
from orchestration.serving.load import TABLE, fault, short_reason
from orchestration.serving.retention import retain
from orchestration.supervision.streams import StreamError, Streams
from spark_jobs.sinks.table_lock import TableBusy
from tickhouse.contract.topology import JOBS, TABLES


def _some_of(what: str, known: Collection[str], names: Sequence[str]) -> list[str]:
    """The names without repetitions. Raises ValueError when there is none, or one that is not known."""
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise ValueError(f"{what} are some of {', '.join(known)}, not {', '.join(unknown) or 'none'}")
    return list(dict.fromkeys(names))


class StreamSelection(dg.Config):
    """Which streams a run is about."""

    streams: list[str] = Field(list(JOBS), description=f"Some of {', '.join(JOBS)}; all when left out.")

    @field_validator("streams")
    @classmethod
    def _known(cls, value: list[str]) -> list[str]:
        return _some_of("streams", JOBS, value)


def _each(context: dg.OpExecutionContext, streams: Streams, names: Sequence[str], act: Callable[[str], object]) -> None:
    """Act on all streams at once, and only then fail if one failed: the others are not held up by it.

    The log and the step's metadata tell what is running in the end, and how each log ends.
    """
    failures = []
    with ThreadPoolExecutor(max_workers=len(names)) as pool:
        for name, future in [(name, pool.submit(act, name)) for name in names]:
            try:
                future.result()
                context.log.info(_left(streams, name))
            except StreamError as error:
                failures.append(f"{name}: {error}")
                context.log.error("%s; %s", failures[-1], _left(streams, name))
    told = {key: value for name in names for key, value in log_metadata(streams, name, f"{name}_").items()}
    if failures:
        raise dg.Failure("\n".join(failures), metadata=told, allow_retries=False)
    context.add_output_metadata(told)


def _left(streams: Streams, name: str) -> str:
    """What is left of a stream after an action, and where its log is."""
    view = streams.observe(name)
    process = f"{view.state} as process {view.pid}" if view.pid else f"{view.state}, no process is left"
    return f"{name}: {process}, wanted {'running' if streams.wanted(name) else 'stopped'}; log {streams.log_path(name)}"


class LaunchSelection(StreamSelection):
    """Which streams to launch."""

    only_wanted: bool = Field(
        False, description="Leave those alone that are wanted stopped by now: what the supervisor asks for."
    )


@dg.op
def launch(context: dg.OpExecutionContext, config: LaunchSelection, streams: StreamsResource) -> None:
    """Want the streams and start those that do not run; returns when all are at work."""
    processes = streams.get(context.log.info)
    _each(context, processes, config.streams, processes.keep if config.only_wanted else processes.launch)


@dg.op
def stop(context: dg.OpExecutionContext, config: StreamSelection, streams: StreamsResource) -> None:
    """Stop wanting the streams and stop them; returns when they are gone."""
    stop_all(context, streams.get(context.log.info), config.streams)


def stop_all(context: dg.OpExecutionContext, streams: Streams, names: Sequence[str]) -> None:
    """Stop wanting streams and stop them, telling the run's log."""
    _each(context, streams, names, streams.stop)


@dg.op
def restart(context: dg.OpExecutionContext, config: LaunchSelection, streams: StreamsResource) -> None:
    """Stop the streams, then start them; returns when all are at work."""
    processes = streams.get(context.log.info)

    def end_and_launch(name: str) -> None:
        processes.end(name)
        (processes.keep if config.only_wanted else processes.launch)(name)

    _each(context, processes, config.streams, end_and_launch)


@dg.job(description="Start streams as processes of their own, and keep them running from now on.")
def launch_streams() -> None:
    """One step: `launch`."""
    launch()


@dg.job(description="Stop streams, and leave them stopped.")
def stop_streams() -> None:
    """One step: `stop`."""
    stop()


@dg.job(description="Stop and start streams, after a change of settings for example.")
def restart_streams() -> None:
    """One step: `restart`."""
    restart()


class MaintenanceConfig(dg.Config):
    """What the maintenance of the tables is to do."""

    tables: list[str] = Field(list(TABLES), description=f"Some of {', '.join(TABLES)}; all when left out.")
    target_file_mib: int = Field(128, ge=1, description="Size in MiB that files are brought to.")
    min_small_files: int = Field(
        16, ge=2, description="So many files of less than half that size in a partition are made fewer."
    )
    retention_days: int = Field(
        LEAST_RETENTION_DAYS,
        ge=LEAST_RETENTION_DAYS,
        description="How long files that were replaced can still be read.",
    )
    mongo_retention_days: int | None = Field(
        None,
        ge=0,
        description="For how many days before the day of each symbol's newest row its documents in MongoDB are kept; "
        f"0 = for ever; as TICKHOUSE_MONGO_RETENTION_DAYS says when left out. Of use with the table {TABLE}.",
    )
    dry_run: bool = Field(False, description="Only say what would be done.")

    @field_validator("tables")
    @classmethod
    def _known(cls, value: list[str]) -> list[str]:
        return _some_of("tables", TABLES, value)


@dg.op
def maintain(
    context: dg.OpExecutionContext, config: MaintenanceConfig, lakehouse: LakehouseResource, mongo: MongoResource
) -> None:
    """Make many small files few, remove what no reader needs any more, and clean the logs, table by table.

    Then remove the documents that are older than their retention, if there is one.
    """
    policy = Policy(config.target_file_mib * 2**20, config.min_small_files, config.retention_days, config.dry_run)
    tables = Maintenance(lakehouse.get(), lakehouse.settings().home, policy)
    failures = []
    for table in config.tables:
        try:
            report = tables.maintain(table, _loader(lakehouse, mongo) if table == TABLE else NOBODY)
            context.log.info(report.text() if report else f"{table}: there is no such table yet")
        except (TableBusy, MaintenanceError, DeltaError) as error:
            failures.append(f"{table}: {error}")
            context.log.error(failures[-1])
    days = config.mongo_retention_days
    if days is None:
        days = lakehouse.settings().mongo_retention_days
    if days and TABLE in config.tables:
        try:
            _retain(context, lakehouse, mongo, days, config.dry_run)
        except PyMongoError as error:
            failures.append(f"MongoDB {fault(error)}: documents older than {days} days stay until the next run")
            context.log.error(failures[-1])
        except DeltaError as error:
            failures.append(f"{TABLE}: {error}")
            context.log.error(failures[-1])
    if failures:
        raise dg.Failure("\n".join(failures), allow_retries=False)


def _retain(
    context: dg.OpExecutionContext, lakehouse: LakehouseResource, mongo: MongoResource, days: int, dry_run: bool
) -> None:
    """Remove what is older than the retention from the collections; log and metadata of the step tell what."""
    with mongo.open() as store:
        reports = list(retain(lakehouse.get(), store, days, dry_run=dry_run))
    for report in reports:
        context.log.info(report.text())
    context.add_output_metadata(
        {f"{report.collection}_removed": report.removed for report in reports}
        | {f"{report.collection}_kept": cut_text(report.kept) for report in reports}
    )


def _loader(lakehouse: LakehouseResource, mongo: MongoResource) -> Reader:
    """How far the table has been loaded into the collection that is furthest behind."""
    newest = lakehouse.get().version(TABLE)
    try:
        with mongo.open() as store:
            records = store.loaded().values()
    except PyMongoError as error:
        away = f"nothing is removed as MongoDB does not say what it has loaded: {short_reason(error)}"
        return Reader(None, unknown=away)
    loaded = [record for record in records if newest is not None and record.table_id == newest.table_id]
    if not loaded:
        return NOBODY
    last = min(loaded, key=lambda record: record.delta_version)
    return Reader(last.delta_version, last.loaded_at)


@dg.job(
    description="Compact the Delta tables' small files, remove what is older than its retention, clean the logs; and "
    "remove documents of MongoDB that are older than theirs, if there is one."
)
def maintain_tables() -> None:
    """One step: `maintain`."""
    maintain()


load_mongodb = dg.define_asset_job(
    "load_mongodb",
    selection=dg.AssetSelection.groups(LOAD_GROUP),
    description="Load the new rows of zscores into the collections of MongoDB.",
)

STREAM_JOBS = (launch_streams, stop_streams, restart_streams)
