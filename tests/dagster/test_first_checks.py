"""The sensor that has everything checked soon after the streams have started, with stand-ins for the streams."""

from pathlib import Path

import dagster as dg
import pytest

from orchestration.defs import startup_checks
from orchestration.supervision.stream_health import StreamView
from tests.dagster.conftest import definitions, make_run


def tick(home: Path, instance: dg.DagsterInstance) -> dg.RunRequest | dg.SkipReason:
    loaded = definitions(home)
    context = dg.build_sensor_context(instance=instance, definitions=loaded, resources=loaded.resources or {})
    result = startup_checks.first_checks(context)
    assert isinstance(result, dg.RunRequest | dg.SkipReason)
    return result


def test_everything_is_checked_once_soon_after_the_start(
    stand_in_home: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(tick(stand_in_home, instance), dg.SkipReason), "no stream runs"
    ages = {"prices": 130.0, "moving": 3.0, "zscore": None, "trend": 130.0}
    monkeypatch.setattr(
        "orchestration.supervision.streams.Streams.observe",
        lambda _self, name: StreamView("running" if ages[name] else "crashed", running_seconds=ages[name]),
    )
    assert isinstance(tick(stand_in_home, instance), dg.RunRequest), "one that crashed makes no new beginning"
    make_run(instance, definitions(stand_in_home).resolve_job_def("check_everything"), dg.DagsterRunStatus.STARTED)
    assert isinstance(tick(stand_in_home, instance), dg.SkipReason), "it is under way"
    ages["trend"] = 310.0
    assert isinstance(tick(stand_in_home, instance), dg.SkipReason), "it was launched after the second moment"
    ages["trend"] = 300.0
    assert isinstance(tick(stand_in_home, instance), dg.RunRequest), "it was launched before"
