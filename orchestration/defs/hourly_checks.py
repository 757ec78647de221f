"""The job of every hour, and of the first minutes: all tables and collections are materialised and checked, in one run.

Dagster lists a check's result as long as its asset is not materialised again, so both belong together: in between
assets are observed (`orchestration.defs.asset_events`). A job of steps rather than of assets, because to materialise a
table's asset is to launch its stream.

The steps do not depend on one another: a table that cannot be reported has still to be checked.
"""

from collections.abc import Mapping

import dagster as dg

from orchestration.defs import checks
from orchestration.defs.asset_events import (
    board_metadata,
    collection_metadata,
    materialised_at,
    picture_metadata,
    table_metadata,
)
from orchestration.defs.charts import loaded_collections
from orchestration.defs.checks import live_now, look, look_into
from orchestration.defs.recompute import compared
from orchestration.defs.resources import LakehouseResource, MongoResource, StreamsResource, TopicsResource
from orchestration.monitoring.health_checks import CheckKey, Outcome
from orchestration.monitoring.table_checks import TABLE_CHECKS
from orchestration.recompute.reconcile import NothingToCompare
from tickhouse.contract.topology import TABLES


@dg.op
def materialise_changed(context: dg.OpExecutionContext, lakehouse: LakehouseResource, mongo: MongoResource) -> None:
    """Materialise the tables and collections that have changed since they were, with a picture of the last hour.

    What has not changed is left: it is no fresher than it was.
    """
    tables = lakehouse.get()
    moments = {table: moment for table in TABLES if (moment := tables.committed_at(table)) is not None}
    records = loaded_collections(context, mongo)
    moments |= {asset: record.loaded_at for asset, record in records.items()}
    found = [
        asset
        for asset, moment in moments.items()
        if (last := materialised_at(context.instance, asset)) is None or moment.timestamp() > last
    ]
    context.log.info("changed since they were materialised: %s", ", ".join(found) or "none")
    if not found:
        return
    shown = picture_metadata(tables, context.instance, context.log) | board_metadata(lakehouse.settings())
    for asset in found:
        told = collection_metadata(records[asset]) if asset in records else table_metadata(tables, asset)
        context.log_event(dg.AssetMaterialization(asset_key=asset, metadata=told | shown))


@dg.op
def check_health(
    context: dg.OpExecutionContext, streams: StreamsResource, topics: TopicsResource, lakehouse: LakehouseResource
) -> None:
    """Evaluate the checks of the streams' health."""
    _report(context, look(streams.get(), topics.get(), lakehouse.get(), live_now(streams.settings())))


@dg.op
def check_content(context: dg.OpExecutionContext, lakehouse: LakehouseResource, mongo: MongoResource) -> None:
    """Evaluate the checks of what tables and collections hold."""
    outcomes = look_into(lakehouse, mongo, list(TABLE_CHECKS))
    _report(context, {key: outcomes[key] for key in TABLE_CHECKS})


@dg.op
def check_results(context: dg.OpExecutionContext, lakehouse: LakehouseResource) -> None:
    """Recompute the newest results that are final and compare them, if there is anything to compare yet."""
    try:
        _report(context, compared(lakehouse))
    except NothingToCompare as error:
        context.log.info("%s", error)


def _report(context: dg.OpExecutionContext, outcomes: Mapping[CheckKey, Outcome]) -> None:
    for key, outcome in outcomes.items():
        context.log.info("%s %s: %s", key.asset, key.name, outcome.description)
        # Dagster takes these as well; its annotation lacks them.
        context.log_event(checks.evaluation(key, outcome))  # type: ignore[arg-type]


@dg.job(
    description="Materialise the tables and collections that have changed, and evaluate all checks: health, content "
    "and reconcile. Needs no configuration, changes no data."
)
def check_everything() -> None:
    """Four steps that do not depend on one another."""
    materialise_changed()
    check_health()
    check_content()
    check_results()
