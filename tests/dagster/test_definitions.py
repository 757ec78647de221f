"""The definitions load without anything behind them, and say what is what."""

import os
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from orchestration.board.panels import DAGSTER_GROUPS
from orchestration.defs.resources import LakehouseResource, build_resources
from orchestration.monitoring.check_schedule import MOMENTS
from orchestration.monitoring.health_checks import CHECKS, STREAM_OF, CheckKey
from orchestration.monitoring.table_checks import TABLE_CHECKS
from orchestration.recompute.expected_rows import RESULT_TABLES
from orchestration.settings import PROJECT_ROOT, OrchestrationSettings
from tests.dagster.conftest import definitions
from tickhouse.contract.tables import COLUMNS

TABLES = {"prices", "rejects", "moving_stats", "zscores", "higher", "lower"}
COLLECTIONS = {f"zscore_{window}" for window in ("30s", "1m", "5m", "15m", "30m", "1h")}


def test_the_asset_graph_is_that_of_the_flow(tmp_path: Path) -> None:
    graph = definitions(tmp_path).resolve_asset_graph()
    parents = {
        key.to_user_string(): {parent.to_user_string() for parent in graph.get(key).parent_keys}
        for key in graph.get_all_asset_keys()
    }
    assert parents == {
        "exchange": set(),
        "btc_price": {"exchange"},
        **{table: {"btc_price"} for table in TABLES - {"zscores"}},
        "zscores": {"btc_price", "moving_stats"},
        **{collection: {"zscores"} for collection in COLLECTIONS},
    }


def test_every_asset_is_described(tmp_path: Path) -> None:
    graph = definitions(tmp_path).resolve_asset_graph()
    for key in graph.get_all_asset_keys():
        node = graph.get(key)
        assert node.description and node.kinds and node.owners and node.group_name != "default", key
        assert (key.to_user_string() in ("exchange", "btc_price")) == node.is_external


def test_every_asset_says_who_watches_it_and_where_its_newest_values_are(tmp_path: Path) -> None:
    loaded = definitions(tmp_path)
    sensors = {f"`{sensor.name}`" for sensor in loaded.sensors or ()}
    for spec in loaded.resolve_all_asset_specs():
        said = spec.description or ""
        assert any(f"sensor {sensor}" in said for sensor in sensors), spec.key
        if spec.key.to_user_string() in TABLES | COLLECTIONS:
            assert MOMENTS in said and "*Events*" in said and "`live_board`" in said and "To materialise it" in said


def test_the_board_links_to_the_groups_that_there_are(tmp_path: Path) -> None:
    graph = definitions(tmp_path).resolve_asset_graph()
    assert {graph.get(key).group_name for key in graph.get_all_asset_keys()} == set(DAGSTER_GROUPS)


def test_a_check_that_does_not_come_by_itself_at_once_says_when_it_comes(tmp_path: Path) -> None:
    graph = definitions(tmp_path).resolve_asset_graph()
    for key in graph.asset_check_keys:
        later = CheckKey(key.asset_key.to_user_string(), key.name) not in CHECKS
        assert (f"Evaluated {MOMENTS}." in (graph.get(key).description or "")) == later, key


def test_every_table_and_collection_tells_its_columns_before_it_is_there(tmp_path: Path) -> None:
    graph = definitions(tmp_path).resolve_asset_graph()
    for key in graph.get_all_asset_keys():
        metadata = graph.get(key).metadata
        if key.to_user_string() == "exchange":
            continue
        schema = metadata["dagster/column_schema"]
        schema = getattr(schema, "value", schema)
        assert isinstance(schema, dg.TableSchema) and all(column.description for column in schema.columns), key
        if key.to_user_string() in TABLES:
            declared = COLUMNS[key.to_user_string()]
            assert [(column.name, column.type) for column in schema.columns] == [
                (column.name, column.type) for column in declared
            ]
            told = {column.name: column.description or "" for column in schema.columns}
            assert all(f"[{column.unit}]" in told[column.name] for column in declared if column.unit)


def test_every_asset_leads_to_its_code_its_log_and_the_live_page(tmp_path: Path) -> None:
    graph = definitions(tmp_path).resolve_asset_graph()
    for key in graph.get_all_asset_keys():
        metadata = graph.get(key).metadata
        references = metadata["dagster/code_references"]
        assert isinstance(references, dg.CodeReferencesMetadataValue)
        for reference in references.code_references:
            assert isinstance(reference, dg.LocalFileCodeReference) and Path(reference.file_path).is_file(), key
        assert metadata["live_board"] == dg.MetadataValue.url("http://127.0.0.1:8501")
        if key.to_user_string() in TABLES:
            stream = STREAM_OF[key.to_user_string()]
            assert metadata["log"] == dg.MetadataValue.path(str(tmp_path / "logs" / f"{stream}.log"))


def test_every_check_is_of_an_asset(tmp_path: Path) -> None:
    graph = definitions(tmp_path).resolve_asset_graph()
    keys = {(key.asset_key.to_user_string(), key.name) for key in graph.asset_check_keys}
    assert keys == set(CHECKS) | set(TABLE_CHECKS) | {(table, "reconcile") for table in RESULT_TABLES}
    assert {asset for asset, _ in keys} == TABLES | COLLECTIONS


def test_everything_is_loadable(tmp_path: Path) -> None:
    loaded = definitions(tmp_path)
    dg.Definitions.validate_loadable(loaded)
    sensors = loaded.resolve_all_job_defs(), loaded.sensors
    assert sensors[1] is not None
    assert {sensor.default_status for sensor in sensors[1] if isinstance(sensor, dg.SensorDefinition)} == {
        dg.DefaultSensorStatus.RUNNING
    }


def test_an_unknown_override_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such resource: mango"):
        build_resources(OrchestrationSettings(home=tmp_path), {"mango": LakehouseResource(home=str(tmp_path))})


def test_loading_connects_to_nothing_and_starts_no_spark() -> None:
    script = """
import socket, sys
def refuse(*_):
    raise AssertionError("a connection was attempted")
socket.socket.connect = refuse
import orchestration.definitions
orchestration.definitions.defs()
heavy = {"pyspark", "pandas", "matplotlib"} & set(sys.modules)
assert not heavy, heavy
"""
    environment = os.environ | {
        "TICKHOUSE_KAFKA_BOOTSTRAP": "127.0.0.1:1",
        "TICKHOUSE_MONGO_URI": "mongodb://127.0.0.1:1/",
    }
    subprocess.run([sys.executable, "-c", script], check=True, cwd=PROJECT_ROOT, env=environment, timeout=60)
