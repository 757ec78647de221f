"""The sensor that raises alerts: to the log of alerts always, and to a webhook where one is set."""

import datetime
import time
from collections.abc import Iterable

import dagster as dg
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.scheduler.instigation import InstigatorStatus, TickStatus
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus
from pydantic import BaseModel, ValidationError

from orchestration.defs.resources import LakehouseResource, StreamsResource
from orchestration.lakehouse.tables import Lakehouse
from orchestration.lakehouse.time_range import time_range_of
from orchestration.local import processes
from orchestration.monitoring import alert_log, alerts, webhook
from orchestration.monitoring.alerts import Change, Condition
from orchestration.monitoring.webhook_queue import WebhookQueue
from orchestration.serving.mongo import TABLE
from orchestration.settings import OrchestrationSettings, read_endpoints
from orchestration.supervision.streams import Streams
from tickhouse.contract.names import WINDOWS
from tickhouse.contract.topology import JOBS

ALERT_SECONDS = 14  # a second before the daemon looks, as for the other sensors
POST_SECONDS = 3.0
"""For all that is posted in one tick."""
NEWEST_SECONDS = 60.0
"""How far back from the newest one z-scores are looked at when there are new ones."""


class Cursor(BaseModel):
    """What is kept from one tick to the next."""

    memory: alerts.Memory = alerts.Memory()
    outbox: WebhookQueue = WebhookQueue()
    scores_seen: str = ""
    """Which version of the table was looked at."""


@dg.sensor(
    name="alerts",
    minimum_interval_seconds=ALERT_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Tells of streams that are down, a silent source, failing checks and sensors, and prices far from "
    "their mean: once, with an all-clear, in the log of alerts and by TICKHOUSE_ALERT_WEBHOOK.",
)
def alert_sensor(
    context: dg.SensorEvaluationContext, streams: StreamsResource, lakehouse: LakehouseResource
) -> dg.SensorResult:
    """One look at everything that may be amiss."""
    now = time.time()
    cursor = _remembered(context)
    settings = streams.settings()
    conditions = [*_streams(streams.get()), *_source(settings, cursor.memory, now), *_sensors(context)]
    failing, unknown = _checks(context)
    conditions += failing
    try:
        conditions += _scores(lakehouse.get(), settings.alert_zscore, cursor)
    except Exception as error:
        # The query engine raises plain exceptions. The other alerts do not depend on it.
        told = str(error).splitlines()[0] if str(error) else repr(error)
        conditions.append(alerts.sensor_condition("alerts", f"z-scores cannot be read: {told}"))
        unknown = [*unknown, "zscore:"]
    changes = alerts.decide(conditions, unknown, cursor.memory, now)
    _tell(context, settings, changes, cursor.outbox, now)
    raised = sum(known.raised for known in cursor.memory.known.values())
    waiting = f", {len(cursor.outbox.messages)} still to be told" if cursor.outbox.messages else ""
    return dg.SensorResult(skip_reason=f"{raised} alerts stand{waiting}", cursor=cursor.model_dump_json())


def _remembered(context: dg.SensorEvaluationContext) -> Cursor:
    if not context.cursor:
        return Cursor()
    try:
        return Cursor.model_validate_json(context.cursor)
    except ValidationError as error:
        context.log.warning("starting without memory of earlier alerts: %d errors in the cursor", error.error_count())
        return Cursor()


def _streams(streams: Streams) -> Iterable[Condition]:
    given_up = streams.given_up()
    found = (
        alerts.stream_condition(name, streams.observe(name), streams.wanted(name), given_up.get(name)) for name in JOBS
    )
    return [condition for condition in found if condition is not None]


def _source(settings: OrchestrationSettings, memory: alerts.Memory, now: float) -> list[Condition]:
    endpoints = read_endpoints(settings.home)
    producer = processes.read_heartbeat(settings.home, "producer") or {}
    source = endpoints.source if endpoints else None
    condition = alerts.source_condition(source, producer, settings.alert_stale_seconds, memory, now)
    return [] if condition is None else [condition]


def _checks(context: dg.SensorEvaluationContext) -> tuple[list[Condition], list[str]]:
    """The checks that fail, and keys of those that are being evaluated just now."""
    assert context.repository_def is not None
    keys = list(context.repository_def.asset_graph.asset_check_keys)
    latest = context.instance.event_log_storage.get_latest_asset_check_execution_by_key(keys)
    failing, unknown = [], []
    for key, record in latest.items():
        asset = key.asset_key.to_user_string()
        if record.status == AssetCheckExecutionRecordStatus.PLANNED:
            unknown.append(f"check:{asset}:{key.name}")
        elif record.status == AssetCheckExecutionRecordStatus.FAILED:
            event = record.event.dagster_event if record.event else None
            said = event.asset_check_evaluation_data.description if event else None
            failing.append(alerts.check_condition(asset, key.name, said or ""))
    return failing, unknown


def _sensors(context: dg.SensorEvaluationContext) -> list[Condition]:
    assert context.repository_def is not None
    conditions = []
    for state in context.instance.all_instigator_state(instigator_type=InstigatorType.SENSOR):
        name = state.instigator_name
        # There may be states of sensors that an earlier release had.
        known = context.repository_def.has_sensor_def(name) and name != context.sensor_name
        if not known or state.status == InstigatorStatus.STOPPED:
            continue
        # The newest may be under way.
        ticks = context.instance.get_ticks(state.instigator_origin_id, state.selector_id, limit=2)
        finished = [tick for tick in ticks if tick.status != TickStatus.STARTED]
        if finished and finished[0].status == TickStatus.FAILURE:
            error = finished[0].error
            conditions.append(alerts.sensor_condition(name, error.message.splitlines()[0] if error else ""))
    return conditions


def _scores(lakehouse: Lakehouse, limit: float, cursor: Cursor) -> list[Condition]:
    newest = lakehouse.version(TABLE)
    seen = f"{newest.table_id} {newest.version}" if newest else ""
    if newest is None or seen == cursor.scores_seen:
        return []
    cursor.scores_seen = seen
    recent = time_range_of(lakehouse, TABLE, NEWEST_SECONDS, version=newest.version)
    if recent is None:
        return []
    parts = [
        f"{extreme}(z_scores[{number}]['zscore_price']) AS \"{extreme}_{window}\""
        for number, window in enumerate(WINDOWS, start=1)
        for extreme in ("min", "max")
    ]
    rows = lakehouse.query(
        f"SELECT symbol, {', '.join(parts)} FROM {TABLE} WHERE {recent.condition} GROUP BY symbol",  # noqa: S608
        **{TABLE: (TABLE, newest.version)},
    ).to_pylist()
    extremes = {
        (row["symbol"], window): max(row[f"min_{window}"], row[f"max_{window}"], key=abs)
        for row in rows
        for window in WINDOWS
        if row[f"max_{window}"] is not None
    }
    return alerts.score_conditions(extremes, limit)


def _tell(
    context: dg.SensorEvaluationContext,
    settings: OrchestrationSettings,
    changes: Iterable[Change],
    outbox: WebhookQueue,
    now: float,
) -> None:
    address = settings.alert_webhook.get_secret_value()
    moment = datetime.datetime.fromtimestamp(now, datetime.UTC)
    for change in changes:
        text = f"{'ALERT' if change.state == 'raised' else 'ALL CLEAR'}: {change.title}"
        text += f" ({change.detail})" if change.detail else ""
        (context.log.warning if change.state == "raised" else context.log.info)("%s", text)
        alert_log.append(settings.home, alert_log.Alert(at=moment, **change._asdict()))
        if address:
            outbox.add(text, now)
    if not address:
        outbox.messages.clear()
        return
    for dropped in outbox.drop_old(now):
        context.log.error("the webhook was never told: %s", dropped.text)
    failed = outbox.deliver(lambda text, seconds: webhook.post(address, text, seconds), time.time, POST_SECONDS)
    if failed is not None:
        context.log.warning("%s", failed)
