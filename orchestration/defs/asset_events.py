"""What materialisations and observations tell: rows, version, size, a stream's log, a picture of the last hour."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import dagster as dg
import numpy as np

from orchestration.lakehouse.tables import Lakehouse
from orchestration.monitoring.chart_data import HOUR_SECONDS, read_curves
from orchestration.monitoring.charts import Curve, draw, markdown
from orchestration.serving.mongo import Loaded
from orchestration.settings import OrchestrationSettings, read_endpoints
from orchestration.supervision.streams import Streams
from tickhouse.contract.topology import JOBS


def lag_curves(instance: dg.DagsterInstance) -> dict[str, Curve]:
    """By stream, the lag that the supervisor's latest observations tell, which are one a minute."""
    curves = {}
    for spec in JOBS.values():
        records = instance.fetch_observations(dg.AssetKey(spec.tables[0]), limit=round(HOUR_SECONDS / 60)).records
        known = []
        for record in reversed(records):
            observation = record.asset_observation
            lag = observation.metadata.get("lag") if observation else None
            if lag is not None:
                known.append((np.datetime64(round(record.timestamp * 1_000), "ms"), float(str(lag.value))))
        times, values = zip(*known, strict=True) if known else ((), ())
        curves[spec.name] = Curve(np.array(times, "datetime64[ms]"), np.array(values, np.float64))
    return curves


LOG_LINES = 40


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


def collection_metadata(record: Loaded) -> dict[str, Any]:
    """What there is to say of a collection as it was loaded last."""
    return {"dagster/row_count": record.documents, "delta_version": record.delta_version}


def log_metadata(streams: Streams, name: str, prefix: str = "") -> dict[str, dg.MetadataValue[Any]]:
    """Where the log of a stream is, and its end."""
    return {
        f"{prefix}log": dg.MetadataValue.path(str(streams.log_path(name))),
        f"{prefix}log_end": dg.MetadataValue.md(as_code(streams.log_tail(name, LOG_LINES))),
    }


def as_code(text: str) -> str:
    """Markdown that shows a text as it is, whatever is in it."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}"


def board_metadata(settings: OrchestrationSettings) -> dict[str, dg.MetadataValue[Any]]:
    """A link to the live page where it really is; nothing when none runs."""
    endpoints = read_endpoints(settings.home)
    if endpoints is None or endpoints.board_url is None:
        return {}
    return {"live_board": dg.MetadataValue.url(endpoints.board_url)}


def picture_metadata(lakehouse: Lakehouse, instance: dg.DagsterInstance, log: Any) -> dict[str, dg.MetadataValue[Any]]:
    """A picture of the last hour; nothing when there is no price yet. What cannot be drawn is told to `log` only."""
    try:
        curves = read_curves(lakehouse, lag_curves(instance))
        if curves is None:
            return {}
        return {"last_hour": dg.MetadataValue.md(markdown(draw(curves), curves))}
    except Exception as error:
        # The query engine raises plain exceptions. What was to be materialised has been, picture or not.
        log.warning("there is no picture of the last hour: %s", error)
        return {}


LONGEST_SECONDS = 70 * 60.0
"""After so long without a materialisation a change is one: the hourly one has not come."""


def materialised_at(instance: dg.DagsterInstance, asset: str) -> float | None:
    """When an asset was materialised last, in epoch seconds; None when it never was."""
    event = instance.get_latest_materialization_event(dg.AssetKey(asset))
    return None if event is None else event.timestamp


def event_of(
    instance: dg.DagsterInstance, asset: str, metadata: Mapping[str, Any], changed_at: float, now: float
) -> dg.AssetObservation | dg.AssetMaterialization:
    """What is told of an asset that has changed last at `changed_at`, both moments in epoch seconds."""
    last = materialised_at(instance, asset)
    due = last is None or (changed_at > last and now - last >= LONGEST_SECONDS)
    event = dg.AssetMaterialization if due else dg.AssetObservation
    return event(asset_key=asset, metadata=metadata)
