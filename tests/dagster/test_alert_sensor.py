"""The alert sensor on a real instance, with a real receiver: each kind of alert raised once and cleared once."""

import datetime
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    SensorInstigatorData,
    TickData,
    TickStatus,
)
from dagster_shared.error import SerializableErrorInfo

from orchestration.defs.alerts import Cursor, alert_sensor
from orchestration.local import processes
from orchestration.monitoring import alert_log, alerts
from orchestration.monitoring.webhook_queue import FIRST_PAUSE, KEPT_SECONDS
from orchestration.settings import OrchestrationSettings, SettingsError
from producer.heartbeat import utc_text
from tests.dagster.conftest import definitions
from tests.market_tables import append, rows
from tests.webhook_receiver import Receiver
from tickhouse import files
from tickhouse.contract.names import WINDOWS


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    """One that keeps sensors' states and ticks, which an ephemeral one does not."""
    with dg.instance_for_test() as kept:
        yield kept


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    opened = Receiver()
    monkeypatch.setenv("TICKHOUSE_ALERT_WEBHOOK", opened.address)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield opened
    opened.stop()


class Watch:
    """Ticks of the sensor, with a clock that is set by hand."""

    def __init__(self, home: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> None:
        self.home = home
        self.instance = instance
        self.cursor: str | None = None
        self.now = time.time()
        self._monkeypatch = monkeypatch
        self._definitions = definitions(home)

    def tick(self, after: float = 15.0) -> str:
        """Look again so many seconds later; returns what the sensor says."""
        self.now += after
        with self._monkeypatch.context() as patched:
            patched.setattr("time.time", lambda: self.now)
            context = dg.build_sensor_context(
                instance=self.instance,
                cursor=self.cursor,
                definitions=self._definitions,
                sensor_name="alerts",
                resources=self._definitions.resources or {},
            )
            result = alert_sensor(context)
        assert isinstance(result, dg.SensorResult) and isinstance(result.skip_reason, dg.SkipReason)
        self.cursor = result.cursor
        return result.skip_reason.skip_message or ""

    def ticks(self, seconds: float) -> None:
        """Look every 15 seconds for so long."""
        for _ in range(round(seconds / 15)):
            self.tick()

    def logged(self) -> list[tuple[str, str]]:
        """Keys and states of the log of alerts, oldest first."""
        return [(alert.key, alert.state) for alert in reversed(alert_log.latest(self.home, 100))]


@pytest.fixture
def watch(stand_in_home: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> Watch:
    return Watch(stand_in_home, instance, monkeypatch)


def stream(watch: Watch, amiss: bool) -> None:
    processes.set_wanted(watch.home, "moving", "running" if amiss else "stopped")


def source(watch: Watch, amiss: bool) -> None:
    content = {"source": "simulator", "state": "running", "acknowledged": 7 if amiss else 8, "note": "HTTP 500"}
    files.write_json(watch.home / "run" / "producer.heartbeat.json", content | {"written_at": utc_text(watch.now)})


def check(watch: Watch, amiss: bool) -> None:
    evaluation = dg.AssetCheckEvaluation(
        asset_key=dg.AssetKey("zscores"), check_name="scores", passed=not amiss, description="not finite: 1 of 30s"
    )
    watch.instance.report_runless_asset_event(evaluation)


def sensor(watch: Watch, amiss: bool) -> None:
    name = "load_new_zscores"
    states = watch.instance.all_instigator_state(instigator_type=InstigatorType.SENSOR)
    state = next((state for state in states if state.instigator_name == name), None)
    if state is None:
        state = add_state(watch.instance, name)
    error = SerializableErrorInfo("DeltaError: no space left\n", [], "DeltaError") if amiss else None
    data = TickData(
        state.instigator_origin_id,
        name,
        InstigatorType.SENSOR,
        TickStatus.FAILURE if amiss else TickStatus.SKIPPED,
        watch.now,
        error=error,
        selector_id=state.selector_id,
    )
    watch.instance.create_tick(data)


def add_state(instance: dg.DagsterInstance, name: str) -> InstigatorState:
    from dagster._core.remote_origin import (
        ManagedGrpcPythonEnvCodeLocationOrigin,
        RemoteInstigatorOrigin,
        RemoteRepositoryOrigin,
    )
    from dagster._core.types.loadable_target_origin import LoadableTargetOrigin

    location = ManagedGrpcPythonEnvCodeLocationOrigin(LoadableTargetOrigin(), "tickhouse")
    origin = RemoteInstigatorOrigin(RemoteRepositoryOrigin(location, "__repository__"), name)
    state = InstigatorState(
        origin, InstigatorType.SENSOR, InstigatorStatus.DECLARED_IN_CODE, SensorInstigatorData(min_interval=14)
    )
    instance.add_instigator_state(state)
    return state


def score(watch: Watch, amiss: bool) -> None:
    start = datetime.datetime(2025, 5, 8, 12, tzinfo=datetime.UTC)
    # The time of the ticks is of no importance: a recording of last year is looked at as it arrives.
    table = rows("zscores", start, range(10), 12.25) if amiss else rows("zscores", start, range(2_000, 2_010))
    append(watch.home / "lakehouse", "zscores", table)


@pytest.mark.parametrize(
    ("make", "key", "text", "calm"),
    [
        (stream, "stream:moving", "The stream moving is down (stopped)", 15.0),
        (source, "source", "No new tick from simulator (for 60 s: HTTP 500)", 15.0),
        (check, "check:zscores:scores", "The check scores of zscores fails (not finite: 1 of 30s)", 15.0),
        (sensor, "sensor:load_new_zscores", "The sensor load_new_zscores fails (DeltaError: no space left)", 15.0),
        (score, "zscore:BTCUSDT:30s", "BTCUSDT is far from its 30s mean (z-score +12.25, the limit is 11)", 300.0),
    ],
)
def test_each_kind_is_raised_once_and_cleared_once(
    watch: Watch, receiver: Receiver, make: Callable[[Watch, bool], None], key: str, text: str, calm: float
) -> None:
    watch.ticks(30)
    assert receiver.texts == []
    make(watch, True)
    watch.ticks(180)
    keys = {key} if make is not score else {f"zscore:BTCUSDT:{window}" for window in WINDOWS}
    assert watch.logged() == [(name, "raised") for name in sorted(keys, key=order)]
    assert receiver.texts[0] == f"ALERT: {text}"
    assert len(receiver.texts) == len(keys)
    make(watch, False)
    watch.ticks(calm)
    watch.ticks(30)
    assert watch.logged()[len(keys) :] == [(name, "cleared") for name in sorted(keys, key=order)]
    assert receiver.texts[len(keys)] == f"ALL CLEAR: {text.split(' (')[0]}"
    assert len(receiver.texts) == 2 * len(keys)
    assert watch.tick() == "0 alerts stand"


def order(key: str) -> int:
    window = key.rpartition(":")[2]
    return list(WINDOWS).index(window) if window in WINDOWS else 0


def test_a_receiver_that_is_down_is_told_later_in_order(
    watch: Watch, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver.stop()
    stream(watch, True)
    watch.ticks(60)
    assert "1 still to be told" in watch.tick()
    stream(watch, False)
    watch.ticks(30)
    assert watch.logged() == [("stream:moving", "raised"), ("stream:moving", "cleared")]
    revived = Receiver(receiver.port)
    try:
        watch.ticks(600)
        assert [text.split(":")[0] for text in revived.texts] == ["ALERT", "ALL CLEAR"]
    finally:
        revived.stop()


def test_a_receiver_of_another_opinion_is_given_up_and_the_log_says_so(watch: Watch, receiver: Receiver) -> None:
    receiver.status = 500
    stream(watch, True)
    watch.ticks(60)
    assert len(Cursor.model_validate_json(watch.cursor or "").outbox.messages) == 1
    # No long break, which would be one of the stack.
    for _ in range(round(KEPT_SECONDS / 100) + 1):
        watch.tick(100)
    assert watch.tick() == "1 alerts stand", "it stands, and nobody is told any more"
    receiver.status = 200
    stream(watch, False)
    watch.tick(FIRST_PAUSE)
    watch.ticks(300)
    assert receiver.texts == ["ALL CLEAR: The stream moving is down"]


def test_a_slow_receiver_does_not_hold_up_the_sensor(watch: Watch, receiver: Receiver) -> None:
    receiver.slow_seconds = 30
    stream(watch, True)
    watch.ticks(30)
    began = time.monotonic()
    assert "1 still to be told" in watch.tick()
    assert time.monotonic() - began < 6


def test_without_a_webhook_the_log_tells(watch: Watch) -> None:
    stream(watch, True)
    watch.ticks(60)
    assert watch.logged() == [("stream:moving", "raised")]
    assert Cursor.model_validate_json(watch.cursor or "").outbox.messages == []


def test_a_cursor_of_another_release_is_no_obstacle(watch: Watch) -> None:
    watch.cursor = json.dumps({"memory": {"known": 7}})
    assert watch.tick() == "0 alerts stand"


def test_scores_that_cannot_be_read_are_an_alert_and_hide_no_other(watch: Watch) -> None:
    broken = watch.home / "lakehouse" / "zscores" / "_delta_log"
    broken.mkdir(parents=True)
    (broken / f"{0:020}.json").write_text("{")
    stream(watch, True)
    watch.ticks(60)
    assert sorted(watch.logged()) == [("sensor:alerts", "raised"), ("stream:moving", "raised")]


@pytest.mark.parametrize("address", ["ftp://hooks.example/s3cr3t", "s3cr3t", "http://"])
def test_a_wrong_address_is_told_and_not_shown(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("TICKHOUSE_ALERT_WEBHOOK", address)
    with pytest.raises(SettingsError, match="TICKHOUSE_ALERT_WEBHOOK: is an address that begins with http") as refusal:
        OrchestrationSettings.read()
    assert "s3cr3t" not in str(refusal.value)
    monkeypatch.setenv("TICKHOUSE_ALERT_WEBHOOK", "https://hooks.example/s3cr3t")
    settings: Any = OrchestrationSettings.read()
    assert "s3cr3t" not in repr(settings) + str(settings.model_dump())
    assert alerts.LONGEST_BREAK > 100
