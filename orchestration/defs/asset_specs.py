"""What each asset is: exchange, topic, tables, collections, and what there is to say of each before it is
materialised.
"""

from __future__ import annotations

import datetime
import inspect
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg

from orchestration.monitoring.check_schedule import MOMENTS
from orchestration.serving import load
from orchestration.serving.mongo import COLLECTION_ASSETS, COLLECTIONS, DATABASE
from orchestration.settings import PROJECT_ROOT, OrchestrationSettings
from tickhouse.contract.names import TICKS_TOPIC
from tickhouse.contract.tables import COLUMNS
from tickhouse.contract.topology import JobSpec

OWNERS = ["team:market-data"]
EXCHANGE = "exchange"
TOPIC = "btc_price"
LOAD_GROUP = "mongodb"

_DESCRIPTIONS = {
    "prices": "Every valid message of the price topic, late and repeated ones included, by its Kafka coordinates.",
    "rejects": "Every message that is not a tick, as it came, with the reason.",
    "moving_stats": "Mean, sample deviation and count of six sliding windows, one row per distinct on-time tick.",
    "zscores": "How many standard deviations the price is from each window's mean, one row per distinct on-time tick.",
    "higher": "Seconds from each tick to the first strictly higher price within 20 s.",
    "lower": "Seconds from each tick to the first strictly lower price within 20 s.",
}
_WHERE_SEEN = (
    f"The overview tells how it was when it was materialised last, which is {MOMENTS}, with a picture: `last_hour`, "
    "behind *Show Markdown*. Newer values, and every ten minutes a picture, are observed in between: see *Events*. The "
    "newest of all are on the board: `live_board`."
)
"""Ends the description of what is materialised at the moments of the checks."""
_UPSTREAM = {"zscores": [TOPIC, "moving_stats"]}
_SELDOM = {"rejects"}
"""Tables that get no rows as long as all is well: nothing can be concluded from their age."""
# Dagster judges freshness by materialisations alone. While prices come, the topic is materialised once a minute, tables
# and collections when they are checked: once an hour, and after 70 minutes at the latest
# (`orchestration.defs.asset_events`). That rows come within minutes is what the check `fresh` is for.
_TOPIC_FRESHNESS = dg.FreshnessPolicy.time_window(
    fail_window=datetime.timedelta(hours=1), warn_window=datetime.timedelta(minutes=10)
)
_FRESHNESS = dg.FreshnessPolicy.time_window(
    fail_window=datetime.timedelta(hours=3), warn_window=datetime.timedelta(minutes=90)
)


def exchange_spec(settings: OrchestrationSettings) -> dg.AssetSpec:
    """Where prices come from."""
    return dg.AssetSpec(
        EXCHANGE,
        group_name="ingest",
        kinds={"python", "source"},
        owners=OWNERS,
        description="Where prices come from: Binance, a simulator that answers like it, or a recording. Its latest "
        "observation says which, whether the producer gets prices from it, and the last one's time.\n\n"
        "The sensor `supervisor` observes it once a minute. The process `producer` is kept running by `tickhouse up`.",
        metadata=_links(settings, "producer", "producer/sources.py"),
    )


def topic_spec(settings: OrchestrationSettings) -> dg.AssetSpec:
    """The topic that everything begins with."""
    return dg.AssetSpec(
        TOPIC,
        deps=[EXCHANGE],
        group_name="ingest",
        kinds={"kafka"},
        owners=OWNERS,
        description="The topic btc-price: one message per observed price, from the exchange or a replay.\n\n"
        "The sensor `supervisor` materialises it once a minute while messages come, and observes it otherwise.",
        metadata={
            "topic": TICKS_TOPIC,
            "dagster/column_schema": _schema(
                ("symbol", "string", "trading pair, also the message's key"),
                ("price", "number or string", "observed price [quote currency]"),
                ("timestamp", "RFC 3339 string", "time of the tick [UTC]"),
            ),
            **_links(settings, "producer", "producer/publish.py"),
        },
        freshness_policy=_TOPIC_FRESHNESS,
    )


def table_specs(spec: JobSpec, settings: OrchestrationSettings) -> list[dg.AssetSpec]:
    """The tables of one stream job."""
    return [
        dg.AssetSpec(
            table,
            deps=_UPSTREAM.get(table, [TOPIC]),
            group_name="streams",
            kinds={"pyspark", "deltalake", "kafka"},
            owners=OWNERS,
            description=f"{_DESCRIPTIONS[table]}\n\nThe stream `{spec.name}` writes it. The sensor `supervisor` keeps "
            "the stream running and observes the table once a minute, though Dagster lists no automation for it. To "
            f"materialise it is to launch the stream; one that runs is left alone.\n\n{_WHERE_SEEN}",
            metadata={
                "stream": spec.name,
                "topic": spec.archives.get(table, "none"),
                "dagster/column_schema": _schema(
                    *((column.name, column.type, column.text) for column in COLUMNS[table])
                ),
                **_links(settings, spec.name, f"spark_jobs/jobs/{spec.name}.py", "tickhouse/contract/tables.py"),
            },
            freshness_policy=None if table in _SELDOM else _FRESHNESS,
        )
        for table in spec.tables
    ]


def collection_specs(settings: OrchestrationSettings) -> list[dg.AssetSpec]:
    """The collections of MongoDB."""
    return [
        dg.AssetSpec(
            asset,
            deps=["zscores"],
            group_name=LOAD_GROUP,
            kinds={"mongodb", "python"},
            owners=OWNERS,
            skippable=True,  # a load that a sensor requests is observed
            description=f"The collection {COLLECTIONS[window]} in the database {DATABASE}: one document per tick with "
            f"the z-score of the {window} window. Loading is idempotent.\n\nThe sensor `load_new_zscores` loads it "
            "while new rows come, and observes it. To materialise it is to load at once what is new.\n\n"
            f"{_WHERE_SEEN}",
            metadata={
                "collection": COLLECTIONS[window],
                "window": window,
                "dagster/column_schema": _schema(
                    ("_id", "string", "SYMBOL|TIMESTAMP: the tick's identity"),
                    ("timestamp", "date", "time of the tick, whole milliseconds [UTC]"),
                    ("symbol", "string", "trading pair"),
                    ("window", "string", f"always {window}"),
                    ("zscore_price", "double or null", "(price - mean) / standard deviation [standard deviations]"),
                ),
                **_links(settings, None, load.load),
            },
            freshness_policy=_FRESHNESS,
        )
        for window, asset in COLLECTION_ASSETS.items()
    ]


def _schema(*columns: tuple[str, str, str]) -> dg.TableSchema:
    return dg.TableSchema([dg.TableColumn(name, kind, description=text) for name, kind, text in columns])


def _links(
    settings: OrchestrationSettings, process: str | None, *code: str | Callable[..., Any]
) -> dict[str, dg.MetadataValue[Any]]:
    """Links to code (files below the project's root, or functions), to a process's log, and to the live page."""
    links: dict[str, dg.MetadataValue[Any]] = {"dagster/code_references": _code(code)}
    if process is not None:
        links["log"] = dg.MetadataValue.path(str(settings.home / "logs" / f"{process}.log"))
    if settings.board_port:  # with 0 it has a port that is known once it runs: observations tell
        links["live_board"] = dg.MetadataValue.url(f"http://127.0.0.1:{settings.board_port}")
    return links


def _code(code: tuple[str | Callable[..., Any], ...]) -> dg.MetadataValue[Any]:
    references = []
    # Beta in Dagster, whose version is pinned: nobody who runs the stack can do anything about a warning at each start.
    with warnings.catch_warnings(action="ignore", category=dg.BetaWarning):
        for place in code:
            if isinstance(place, str):
                file, line = PROJECT_ROOT / place, 1
            else:
                file, line = Path(inspect.getfile(place)), inspect.getsourcelines(place)[1]
            references.append(dg.LocalFileCodeReference(file_path=str(file), line_number=line, label=file.name))
        return dg.CodeReferencesMetadataValue(code_references=references)
