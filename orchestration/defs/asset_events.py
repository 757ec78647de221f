"""What materialisations and observations tell: rows, version, size, a stream's log, a picture of the last hour."""

from __future__ import annotations

import re
from typing import Any

import dagster as dg

from orchestration.lakehouse.tables import Lakehouse
from orchestration.monitoring.chart_data import lag_curves, read_curves
from orchestration.monitoring.charts import draw, markdown
from orchestration.serving.load import Loaded
from orchestration.settings import OrchestrationSettings, read_endpoints
from orchestration.supervision.streams import Streams

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
