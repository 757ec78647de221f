"""Which reports of assets carry a picture of the last hour, and that it is of what the tables hold."""

import datetime
from pathlib import Path

import dagster as dg
import numpy as np
import pytest
from dagster._core.storage.tags import SENSOR_NAME_TAG
from deltalake import DeltaTable

from orchestration.defs import schedules
from orchestration.defs.asset_events import lag_curves
from orchestration.defs.resources import MongoResource
from orchestration.lakehouse.tables import Lakehouse
from orchestration.monitoring.chart_data import read_curves
from orchestration.settings import Endpoints, write_endpoints
from tests.dagster.conftest import definitions
from tests.market_tables import make
from tickhouse.contract.names import WINDOWS

START = datetime.datetime(2025, 5, 8, 12, tzinfo=datetime.UTC)
TICKS = 1_000


def pictures(result: dg.ExecuteInProcessResult) -> dict[str, bool]:
    """By asset, whether its materialisation or observation carries a picture."""
    found = {}
    told: list[dg.AssetMaterialization | dg.AssetObservation] = []
    told += [event.step_materialization_data.materialization for event in result.get_asset_materialization_events()]
    told += [event.asset_observation_data.asset_observation for event in result.get_asset_observation_events()]
    for each in told:
        picture = each.metadata.get("last_hour")
        found[each.asset_key.to_user_string()] = picture is not None
        assert picture is None or str(picture.value).startswith("![BTCUSDT: price with its band")
    return found


def test_the_curves_are_those_of_the_tables(stand_in_home: Path, instance: dg.DagsterInstance) -> None:
    make(stand_in_home / "lakehouse", START, TICKS)
    for number in range(3):
        instance.report_runless_asset_event(dg.AssetObservation("moving_stats", metadata={"lag": number}))
    curves = read_curves(Lakehouse(str(stand_in_home / "lakehouse")), lag_curves(instance))
    assert curves is not None and (curves.symbol, curves.window) == ("BTCUSDT", "5m")
    # Of each 20 s the last: ticks 199, 399, …
    assert curves.price.times.tolist() == [
        (START + datetime.timedelta(seconds=20 * number)).replace(tzinfo=None) for number in range(5)
    ]
    assert curves.price.values.tolist() == [64_000 + tick % 7 for tick in range(199, TICKS, 200)]
    assert set(curves.mean.values) == {64_003.0} and set(curves.deviation.values) == {2.0}
    assert list(curves.scores) == list(WINDOWS)
    assert all(np.array_equal(curve.values, [-1.0] * 5) for curve in curves.scores.values())
    assert curves.lags["moving"].values.tolist() == [0, 1, 2] and curves.lags["prices"].values.size == 0


def test_what_has_changed_is_reported_with_a_picture(stand_in_home: Path, instance: dg.DagsterInstance) -> None:
    make(stand_in_home / "lakehouse", START, TICKS)
    write_endpoints(
        stand_in_home,
        Endpoints(
            kafka_bootstrap="x:1",
            mongo_uri="mongodb://127.0.0.1:1/",
            lakehouse=str(stand_in_home / "lakehouse"),
            checkpoints="x",
            source="simulator",
            board_url="http://127.0.0.1:4321",
        ),
    )
    loaded = definitions(stand_in_home)
    result = loaded.resolve_job_def("draw_last_hour").execute_in_process(instance=instance)
    assert pictures(result) == {"prices": True, "moving_stats": True, "zscores": True}
    (event, *_) = result.get_asset_materialization_events()
    metadata = event.step_materialization_data.materialization.metadata
    assert metadata["live_board"] == dg.MetadataValue.url("http://127.0.0.1:4321")
    assert metadata["dagster/row_count"].value == TICKS


def test_nothing_is_reported_that_has_not_changed(
    stand_in_home: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(stand_in_home / "lakehouse", START, 10)
    loaded = definitions(stand_in_home)
    context = dg.build_schedule_context(
        instance=instance, resources=loaded.resources or {}, scheduled_execution_time=START
    )
    assert isinstance(schedules.pictures(context), dg.RunRequest)
    committed = DeltaTable(str(stand_in_home / "lakehouse" / "prices")).history(1)[0]["timestamp"] / 1_000
    monkeypatch.setattr("time.time", lambda: committed + 3_600)
    assert isinstance(schedules.pictures(context), dg.SkipReason)
    result = loaded.resolve_job_def("draw_last_hour").execute_in_process(instance=instance)
    assert result.success and pictures(result) == {}


@pytest.mark.integration
def test_loads_by_hand_show_a_picture_and_those_of_the_sensor_none(
    stand_in_home: Path, instance: dg.DagsterInstance, mongo_uri: str
) -> None:
    make(stand_in_home / "lakehouse", START, 50)
    loaded = definitions(stand_in_home, mongo=MongoResource(home=str(stand_in_home), mongo_uri=mongo_uri))
    job = loaded.resolve_job_def("load_mongodb")
    assert set(pictures(job.execute_in_process(instance=instance)).values()) == {True}
    tags = {SENSOR_NAME_TAG: "load_new_zscores"}
    again = job.execute_in_process(instance=instance, tags=tags)
    assert set(pictures(again).values()) == {False}
    assert not again.get_asset_materialization_events(), "the results of the collections' checks stay listed"


def test_a_picture_that_cannot_be_drawn_is_no_obstacle(stand_in_home: Path, instance: dg.DagsterInstance) -> None:
    make(stand_in_home / "lakehouse", START, 10)
    for file in (stand_in_home / "lakehouse" / "zscores").rglob("*.parquet"):
        file.unlink()
    loaded = definitions(stand_in_home)
    result = loaded.resolve_job_def("draw_last_hour").execute_in_process(instance=instance)
    assert result.success and pictures(result) == {}
    assert any(
        "there is no picture of the last hour" in entry.user_message for entry in instance.all_logs(result.run_id)
    )
