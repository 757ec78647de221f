"""The clock is set back while Dagster's real daemon runs, and while it does not: its sensors look on."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.instance.ref import InstanceRef
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    InstigatorType,
    ScheduleInstigatorData,
    SensorInstigatorData,
    TickData,
    TickStatus,
)

from orchestration.local import processes
from orchestration.monitoring import dagster_records
from orchestration.stack.daemon import ClockWatch, Forgotten, forget_future
from tests.fake_clock import FakeClock
from tests.unit.test_stack_code_server import sensor_state

NOW = 1_700_000_000.0
HOUR = 3_600.0
_CODE = """
import os, pathlib
import dagster as dg

@dg.sensor(minimum_interval_seconds=1, default_status=dg.DefaultSensorStatus.RUNNING, jobs=[])
def looks(_):
    with pathlib.Path(os.environ["LOOKS"]).open("a") as file:
        file.write("looked\\n")
    return dg.SkipReason("seen")

defs = dg.Definitions(sensors=[looks])
"""


def test_only_a_clock_that_is_set_back_counts() -> None:
    watch = ClockWatch(1_000.0, 10.0)
    looks = [(1_001.0, 11.0), (8_000.0, 12.0), (8_000.0, 13.5), (8_000.5, 14.5), (4_000.5, 15.5), (4_001.5, 16.5)]
    assert [watch.set_back(*look) for look in looks] == [0.0, 0.0, 0.0, 0.0, 4_001.0, 0.0]


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(tmp_path))) as made:
        yield made


def tick(instance: dg.DagsterInstance, state: InstigatorState, at: float) -> None:
    data = TickData(
        state.instigator_origin_id, state.instigator_name, state.instigator_type, TickStatus.SKIPPED, at, [], [],
        selector_id=state.selector_id,
    )  # fmt: skip
    instance.create_tick(data)


def test_what_is_of_the_future_is_forgotten_and_nothing_else(instance: dg.DagsterInstance) -> None:
    sensor, past = (sensor_state(name, "kept").with_status(InstigatorStatus.RUNNING) for name in ("ahead", "past"))
    data = sensor.sensor_instigator_data
    assert data is not None
    sensor = sensor.with_data(data._replace(last_tick_timestamp=NOW - 5, last_tick_start_timestamp=NOW + HOUR))
    past = past.with_data(data._replace(last_tick_timestamp=NOW - 9, last_tick_start_timestamp=NOW - 9))
    schedule = InstigatorState(
        sensor_state("hourly", None).origin, InstigatorType.SCHEDULE, InstigatorStatus.RUNNING,
        ScheduleInstigatorData("0 * * * *", NOW - 9, NOW + HOUR),
    )  # fmt: skip
    for state in (sensor, past, schedule):
        instance.add_instigator_state(state)
        for at in (NOW - HOUR, NOW - 1, NOW + HOUR, NOW + 9_999 * HOUR):
            tick(instance, state, at)
    assert forget_future(instance, NOW) == Forgotten(states=2, ticks=6)
    assert forget_future(instance, NOW) == Forgotten(0, 0)
    stored = {state.instigator_name: state.instigator_data for state in instance.all_instigator_state()}
    ahead = stored["ahead"]
    assert isinstance(ahead, SensorInstigatorData)
    assert (ahead.last_tick_timestamp, ahead.last_tick_start_timestamp, ahead.cursor) == (NOW - 5, None, "kept")
    assert stored["past"] == past.instigator_data
    assert stored["hourly"] == ScheduleInstigatorData("0 * * * *", NOW - 9, NOW)
    for state in (sensor, past, schedule):
        left = instance.get_ticks(state.instigator_origin_id, state.selector_id)
        assert [each.timestamp for each in left] == [NOW - 1, NOW - HOUR]


def test_sensors_look_on_when_the_clock_is_set_back(home: Path) -> None:
    clock = FakeClock(home)
    dagster, code, seen = home / "dagster", home / "one_sensor.py", home / "looks"
    dagster.mkdir()
    (dagster / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    code.write_text(_CODE)
    seen.touch()
    environment = {**os.environ, **clock.environment, "DAGSTER_HOME": str(dagster), "LOOKS": str(seen)}
    command = [sys.executable, "-m", "orchestration.stack.daemon", "run", "--python-file", str(code)]

    def wait_for_look(seconds: float) -> None:
        looked, deadline = seen.stat().st_size, time.monotonic() + seconds
        while seen.stat().st_size == looked:
            assert time.monotonic() < deadline, (home / "logs" / "daemon.log").read_text()[-4_000:]
            time.sleep(0.1)

    process = processes.start(home, "daemon", command, environment)
    wait_for_look(60)
    clock.set(-HOUR)
    # Twice: a look may have been under way.
    wait_for_look(40)
    wait_for_look(20)
    assert processes.alive(process)
    assert "the clock was set back by 3600 s" in (home / "logs" / "daemon.log").read_text()
    reported = dagster_records.daemon_heartbeats(dagster)["SENSOR"]
    assert reported == pytest.approx(time.time() - HOUR, abs=60)

    # Once more while no daemon runs.
    processes.stop(process)
    clock.set(-2 * HOUR)
    processes.start(home, "daemon", command, environment)
    wait_for_look(40)
