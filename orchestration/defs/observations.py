"""What is observed once a minute: where prices come from, how far topic, streams and tables have got, and how fast."""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from orchestration.defs.asset_events import board_metadata, event_of
from orchestration.defs.asset_specs import EXCHANGE, TOPIC
from orchestration.defs.supervisor_cursor import Memory
from orchestration.local import processes
from orchestration.settings import OrchestrationSettings, read_endpoints
from orchestration.supervision.lag import Offsets
from orchestration.supervision.stream_health import StreamSnapshot
from tickhouse.contract.names import TICKS_TOPIC
from tickhouse.contract.topology import JOBS


def observations(
    settings: OrchestrationSettings,
    sights: Mapping[str, StreamSnapshot],
    ends: Offsets,
    tables: Mapping[str, Mapping[str, Any]],
    memory: Memory,
    instance: dg.DagsterInstance,
    now: float,
) -> list[dg.AssetObservation | dg.AssetMaterialization]:
    """Of source, topic and tables; notes in `memory` what rates are counted from.

    `tables`: what there is to say of each that is there. Each has one event for that and for its stream.
    """
    seconds = now - memory.observed_at
    counts: dict[str, int] = {}
    events: list[dg.AssetObservation | dg.AssetMaterialization] = []

    def rate(name: str, count: int) -> dict[str, Any]:
        counts[name] = count
        earlier = memory.counts.get(name)
        # A counter that went back began anew: there is no rate to tell.
        known = memory.observed_at > 0 and earlier is not None and count >= earlier
        return {"messages_per_second": round((count - earlier) / seconds, 3)} if known and earlier is not None else {}

    producer = processes.read_heartbeat(settings.home, "producer") or {}
    if producer:
        events.append(dg.AssetObservation(asset_key=EXCHANGE, metadata=_exchange(settings, producer)))
    if TICKS_TOPIC in ends:
        total = sum(ends[TICKS_TOPIC].values())
        # New messages are what makes a topic anew; a look that finds none is only a look.
        event = dg.AssetMaterialization if total > memory.counts.get(TICKS_TOPIC, 0) else dg.AssetObservation
        told = {key: producer[key] for key in ("source", "state", "last_timestamp") if producer.get(key)}
        lags = {f"lag_{name}": sight.lag for name, sight in sights.items() if sight.lag is not None}
        metadata = {"end_offset_sum": total, **rate(TICKS_TOPIC, total), **told, **lags}
        events.append(event(asset_key=TOPIC, metadata=metadata))
    for name, sight in sights.items():
        heartbeat = sight.view.heartbeat
        stream = _stream(sight) | rate(name, heartbeat.get("input_rows", 0)) if heartbeat else {}
        for table in JOBS[name].tables:
            if table in tables:
                changed_at = memory.tables[table].at
                events.append(event_of(instance, table, stream | dict(tables[table]), changed_at, now))
            elif stream:
                events.append(dg.AssetObservation(asset_key=table, metadata=stream))
    memory.observed_at, memory.counts = now, counts
    return events


def _stream(sight: StreamSnapshot) -> dict[str, Any]:
    """What there is to say of a stream that has a heartbeat."""
    told = ("input_rows", "output_rows", "late", "duplicates", "rejects", "last_batch_ms", "last_event_time")
    found = {key: sight.view.heartbeat[key] for key in told if sight.view.heartbeat.get(key) is not None}
    waiting = {"lag": sight.lag, "archive_lag": sight.archive_lag}
    return {"state": sight.view.state} | found | {key: lag for key, lag in waiting.items() if lag is not None}


def _exchange(settings: OrchestrationSettings, producer: Mapping[str, Any]) -> dict[str, Any]:
    """What there is to say of the source, from the producer's heartbeat and from what the stack has chosen."""
    told = ("source", "state", "note", "error", "last_timestamp", "sent", "acknowledged", "skipped", "missed")
    found = {key: producer[key] for key in told if producer.get(key) is not None}
    endpoints = read_endpoints(settings.home)
    if endpoints is not None and endpoints.source_note:
        found["source_note"] = endpoints.source_note
    failures = {f"failures_{kind}": count for kind, count in producer.get("failures", {}).items()}
    return found | failures | board_metadata(settings)
