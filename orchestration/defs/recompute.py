"""In Dagster: recomputing what is stored, to check it (`reconcile`) or to replace it (`backfill`)."""

import datetime
from collections.abc import Iterator, Sequence
from typing import Any

import dagster as dg
from deltalake.exceptions import DeltaError
from pydantic import Field, field_validator
from pymongo.errors import PyMongoError

from orchestration.defs import checks
from orchestration.defs.resources import LakehouseResource, MongoResource
from orchestration.monitoring import health_checks
from orchestration.monitoring.check_schedule import MOMENTS
from orchestration.monitoring.health_checks import CheckKey, Outcome
from orchestration.recompute.backfill import BackfillError, TableBackfill, backfill
from orchestration.recompute.expected_rows import RESULT_TABLES
from orchestration.recompute.reconcile import STRETCH_MINUTES, Findings, NothingToCompare, reconcile
from orchestration.serving import mongo as serving_mongo
from orchestration.serving.load import load
from orchestration.serving.mongo import LoadError, fault
from spark_jobs.sinks.table_lock import TableBusy

FIRST_DAY = "2020-01-01"
"""Early enough for recordings of past days."""
CHECK = "reconcile"

days = dg.DailyPartitionsDefinition(start_date=FIRST_DAY, timezone="UTC", end_offset=1)
"""UTC days, today included."""


class BackfillConfig(dg.Config):
    """What of a day is recomputed."""

    tables: list[str] = Field(
        list(RESULT_TABLES), description=f"Some of {', '.join(RESULT_TABLES)}; all when left out."
    )
    load_mongodb: bool = Field(True, description="Bring the collections in line afterwards.")

    @field_validator("tables")
    @classmethod
    def _known(cls, value: list[str]) -> list[str]:
        unknown = [name for name in value if name not in RESULT_TABLES]
        if unknown or not value:
            raise ValueError(f"tables are some of {', '.join(RESULT_TABLES)}, not {', '.join(unknown) or 'none'}")
        return list(dict.fromkeys(value))


@dg.op(name="backfill_day")
def backfill_day(
    context: dg.OpExecutionContext, config: BackfillConfig, lakehouse: LakehouseResource, mongo: MongoResource
) -> None:
    """Recompute a UTC day from the stored prices, replace it in each table, and bring MongoDB in line."""
    settings, day = lakehouse.settings(), datetime.date.fromisoformat(context.partition_key)
    lateness_ms = round(settings.lateness_seconds * 1_000)
    try:
        for done in backfill(lakehouse.get(), settings.home, day, lateness_ms, config.tables):
            context.log.info(done.text())
            if done.replaced:
                context.log_event(dg.AssetMaterialization(done.table, done.text(), metadata=_metadata(done)))
    except (BackfillError, TableBusy, DeltaError, OSError) as error:
        raise dg.Failure(f"{error}; what was done until then stays, and a repetition does the rest") from error
    if not config.load_mongodb or serving_mongo.TABLE not in config.tables:
        return
    try:
        with mongo.open() as store:
            for loaded in load(lakehouse.get(), store):
                context.log.info(
                    "%s: %s rows loaded, up to version %s",
                    serving_mongo.COLLECTIONS[loaded.window],
                    f"{loaded.rows:,}",
                    loaded.loaded.delta_version,
                )
    except PyMongoError as error:
        done_so_far = "the tables are backfilled, the collections are not yet in line; the next load does that"
        raise dg.Failure(f"MongoDB {fault(error)}: {done_so_far}", allow_retries=False) from error
    except LoadError as error:
        raise dg.Failure(str(error), allow_retries=False) from error


def _metadata(done: TableBackfill) -> dict[str, Any]:
    return {
        "day": done.day.isoformat(),
        "rows_before": done.rows_before,
        "rows_after": done.rows_after,
        "rows_changed": done.changed,
        "rows_added": done.added,
        "rows_removed": done.removed,
        "delta_version": done.version,
        "recomputed_until": {symbol: until.isoformat() for symbol, until in done.until.items()},
    }


@dg.job(
    name="backfill",
    partitions_def=days,
    description="Recompute one UTC day of moving_stats, zscores, higher and lower from the stored prices, ticks that "
    "came late included, and replace that day in each table in one step; then bring MongoDB in line. Choose the day "
    "as partition, today as well: streams may run, nothing is lost or doubled. Repeating it changes nothing.",
)
def backfill_results() -> None:
    """One step: `backfill_day`."""
    backfill_day()


class ReconcileConfig(dg.Config):
    """Which stretch of time is compared."""

    minutes: float = Field(STRETCH_MINUTES, gt=0, description="How long a stretch is compared.")
    until: str | None = Field(
        None,
        description="Its end, such as 2025-05-09T00:00:00Z; when left out, of each symbol the newest that is final.",
    )

    @field_validator("until")
    @classmethod
    def _time(cls, value: str | None) -> str | None:
        if value is not None and datetime.datetime.fromisoformat(value).tzinfo is None:
            raise ValueError("until is a time with its offset, such as 2025-05-09T00:00:00Z")
        return value


@dg.multi_asset_check(
    name="reconcile_tables",
    specs=[
        dg.AssetCheckSpec(
            CHECK,
            asset=table,
            description=f"The newest {STRETCH_MINUTES} minutes that are final, recomputed from prices, are equal to "
            "the stored rows to the last bit. What differs is repaired by the job backfill.\n\n"
            f"Evaluated {MOMENTS}.",
        )
        for table in RESULT_TABLES
    ],
    can_subset=True,
)
def reconcile_tables(
    context: dg.AssetCheckExecutionContext, config: ReconcileConfig, lakehouse: LakehouseResource
) -> Iterator[dg.AssetCheckResult]:
    """Recompute the stretch and compare it."""
    selected = {key.asset_key.to_user_string() for key in context.selected_asset_check_keys}
    until = None if config.until is None else datetime.datetime.fromisoformat(config.until)
    tables = [table for table in RESULT_TABLES if table in selected]
    try:
        outcomes = compared(lakehouse, tables, config.minutes, until)
    except NothingToCompare as error:
        # Whatever else the run is about has not failed: a stream can be materialised before there are prices.
        outcomes = {CheckKey(table, CHECK): Outcome(False, str(error), health_checks.WARN) for table in tables}
    for key, outcome in outcomes.items():
        context.log.info("%s: %s", key.asset, outcome.description)
        yield checks.result(key, outcome)


def compared(
    lakehouse: LakehouseResource,
    tables: Sequence[str] = RESULT_TABLES,
    minutes: float = STRETCH_MINUTES,
    until: datetime.datetime | None = None,
) -> dict[CheckKey, Outcome]:
    """The outcome of the check of each of `tables`; raises what `reconcile` does."""
    settings = lakehouse.settings()
    lateness_ms = round(settings.lateness_seconds * 1_000)
    found = reconcile(settings.lakehouse, lateness_ms, tables, minutes=minutes, until=until)
    return {CheckKey(findings.table, CHECK): _outcome(findings) for findings in found}


def _outcome(findings: Findings) -> Outcome:
    return Outcome(
        findings.passed,
        findings.text(),
        health_checks.ERROR,
        {
            "rows_compared": findings.compared,
            "rows_backfilled": findings.backfilled,
            **{f"rows_{kind}": count for kind, count in findings.counts.items()},
            "compared_until": {symbol: until.isoformat() for symbol, until in findings.until.items()},
        },
    )


reconcile_results = dg.define_asset_job(
    "reconcile_results",
    selection=dg.AssetSelection.checks(*(dg.AssetCheckKey(dg.AssetKey(table), CHECK) for table in RESULT_TABLES)),
    description="Recompute the newest minutes of all result tables from the stored prices and compare them.",
)
