"""The maintenance of tables and collections as a job of Dagster."""

import dagster as dg
from deltalake.exceptions import DeltaError
from pydantic import Field, field_validator
from pymongo.errors import PyMongoError

from orchestration.defs.resources import LakehouseResource, MongoResource
from orchestration.defs.stream_jobs import some_of
from orchestration.lakehouse.maintenance import (
    LEAST_RETENTION_DAYS,
    NOBODY,
    Maintenance,
    MaintenanceError,
    Policy,
    Reader,
)
from orchestration.serving.cutoffs import cutoff_text
from orchestration.serving.mongo import TABLE, fault, short_reason
from orchestration.serving.retention import retain
from spark_jobs.sinks.table_lock import TableBusy
from tickhouse.contract.topology import TABLES


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
        return some_of("tables", TABLES, value)


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
        | {f"{report.collection}_kept": cutoff_text(report.kept) for report in reports}
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
