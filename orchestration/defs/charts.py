"""The job that draws the last hour, and reports tables and collections that have changed with the picture.

A run of its own rather than a part of the sensors' events: drawing takes a second, and runs can be removed when they
are old (`orchestration.defs.run_cleanup`), which the pictures in Dagster's event log need.
"""

import datetime
import time
from typing import Any

import dagster as dg
from pydantic import Field
from pymongo.errors import PyMongoError

from orchestration.defs.asset_events import (
    board_metadata,
    collection_metadata,
    event_of,
    picture_metadata,
    table_metadata,
)
from orchestration.defs.resources import LakehouseResource, MongoResource
from orchestration.lakehouse.tables import Lakehouse
from orchestration.serving.mongo import COLLECTION_ASSETS, COLLECTIONS, Loaded, fault
from tickhouse.contract.topology import TABLES

PICTURE_MINUTES = 10


class PictureConfig(dg.Config):
    """Which tables and collections get a picture."""

    changed_within_minutes: int = Field(
        PICTURE_MINUTES, ge=1, description="Those that have changed within so many minutes."
    )


def changed(lakehouse: Lakehouse, minutes: int) -> list[str]:
    """Tables that have got a new version within so many minutes."""
    committed = {table: lakehouse.committed_at(table) for table in TABLES}
    return [table for table, moment in committed.items() if moment is not None and _within(moment, minutes)]


def _within(moment: datetime.datetime, minutes: int) -> bool:
    return time.time() - moment.timestamp() <= 60 * minutes


@dg.op
def draw_pictures(
    context: dg.OpExecutionContext, config: PictureConfig, lakehouse: LakehouseResource, mongo: MongoResource
) -> None:
    """Draw the last hour once, and report what has changed with it."""
    tables = changed(lakehouse.get(), config.changed_within_minutes)
    shown = picture_metadata(lakehouse.get(), context.instance, context.log) if tables else {}
    if not shown:
        context.log.info("nothing to draw: no table has changed within %d minutes", config.changed_within_minutes)
        return
    shown |= board_metadata(lakehouse.settings())
    for table in tables:
        _tell(context, table, table_metadata(lakehouse.get(), table) | shown)
    for asset, record in loaded_collections(context, mongo).items():
        if _within(record.loaded_at, config.changed_within_minutes):
            _tell(context, asset, collection_metadata(record) | shown)
    context.log.info("the last hour is drawn: see the latest observation of %s", ", ".join(tables))


def _tell(context: dg.OpExecutionContext, asset: str, metadata: dict[str, Any]) -> None:
    now = time.time()
    context.log_event(event_of(context.instance, asset, metadata, now, now))


def loaded_collections(context: dg.OpExecutionContext, mongo: MongoResource) -> dict[str, Loaded]:
    """By asset, what the collections say of their last load; nothing when MongoDB does not answer, which is logged."""
    try:
        with mongo.open() as store:
            loaded = store.loaded()
    except PyMongoError as error:
        context.log.warning("MongoDB %s", fault(error))
        return {}
    return {
        asset: loaded[name] for window, asset in COLLECTION_ASSETS.items() if (name := COLLECTIONS[window]) in loaded
    }


@dg.job(description="Draw price, bands, z-scores and lag of the last hour into what has changed. Changes no data.")
def draw_last_hour() -> None:
    """One step: `draw_pictures`."""
    draw_pictures()
