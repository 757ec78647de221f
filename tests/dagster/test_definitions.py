"""The definitions load without anything behind them, and say what is what."""

import os
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from orchestration.checks import CHECKS
from orchestration.recomputation import RESULT_TABLES
from orchestration.resources import LakehouseResource, build_resources
from orchestration.settings import PROJECT_ROOT, OrchestrationSettings
from tests.dagster.conftest import definitions

TABLES = {"prices", "rejects", "moving_stats", "zscores", "higher", "lower"}
COLLECTIONS = {f"zscore_{window}" for window in ("30s", "1m", "5m", "15m", "30m", "1h")}


def test_the_asset_graph_is_that_of_the_flow(tmp_path: Path) -> None:
    graph = definitions(tmp_path).resolve_asset_graph()
    parents = {
        key.to_user_string(): {parent.to_user_string() for parent in graph.get(key).parent_keys}
        for key in graph.get_all_asset_keys()
    }
    assert parents == {
        "btc_price": set(),
        **{table: {"btc_price"} for table in TABLES - {"zscores"}},
        "zscores": {"btc_price", "moving_stats"},
        **{collection: {"zscores"} for collection in COLLECTIONS},
    }


def test_every_asset_is_described(tmp_path: Path) -> None:
    graph = definitions(tmp_path).resolve_asset_graph()
    for key in graph.get_all_asset_keys():
        node = graph.get(key)
        assert node.description and node.kinds and node.owners and node.group_name != "default", key
        assert (key.to_user_string() == "btc_price") == node.is_external


def test_every_check_is_of_an_asset(tmp_path: Path) -> None:
    graph = definitions(tmp_path).resolve_asset_graph()
    keys = {(key.asset_key.to_user_string(), key.name) for key in graph.asset_check_keys}
    assert keys == set(CHECKS) | {(table, "reconcile") for table in RESULT_TABLES}
    assert {asset for asset, _ in keys} == TABLES


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
assert "pyspark" not in sys.modules
"""
    environment = os.environ | {
        "TICKHOUSE_KAFKA_BOOTSTRAP": "127.0.0.1:1",
        "TICKHOUSE_MONGO_URI": "mongodb://127.0.0.1:1/",
    }
    subprocess.run([sys.executable, "-c", script], check=True, cwd=PROJECT_ROOT, env=environment, timeout=60)
