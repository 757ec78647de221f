"""What is at work, what is not final yet, and what is shown of it where there is little room."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from orchestration.cli.status_view import fitting, render
from orchestration.monitoring.status import (
    CollectionStatus,
    ProducerStatus,
    ServiceStatus,
    Status,
    StreamStatus,
    not_at_work,
    not_final,
)
from orchestration.serving.mongo import COLLECTIONS
from tickhouse.contract.topology import JOBS

ALL = ("board", "code-server", "daemon", "kafka", "mongod", "producer", "webserver")
READ = {"input_rows": 607, "output_rows": 500, "late": 4, "duplicates": 2, "rejects": 1, "lag": 0}


def status(**fields: Any) -> Status:
    """Everything at work, and a recording that has gone through."""
    streams = {name: StreamStatus(state="running", pid=1, **READ) for name in JOBS}
    load = {name: CollectionStatus(documents=500, delta_version=7) for name in COLLECTIONS.values()}
    told: dict[str, Any] = {
        "source": "replay:/data/ticks.jsonl",
        "source_note": "a recording, /data/ticks.jsonl",
        "kafka_bootstrap": "127.0.0.1:9092",
        "mongo_uri": "mongodb://127.0.0.1:27017/?journal=true",
        "lakehouse": "/data/.tickhouse/lakehouse",
        "dagster_url": "http://127.0.0.1:3000",
        "board_url": "http://127.0.0.1:8501",
        "up_pid": 3,
        "producer": ProducerStatus(state="ended", acknowledged=607, last_timestamp="2026-01-01T12:34:56.700Z"),
        "streams": streams,
        "load": load,
        "services": {name: ServiceStatus(state="running", pid=2) for name in ALL},
        "drained": True,
        "waiting_for": [],
        "problems": [],
    }
    return Status.model_validate(told | fields)


def with_stream(**fields: Any) -> Status:
    found = status()
    found.streams["moving"] = found.streams["moving"].model_copy(update=fields)
    return found


def with_service(name: str, state: str = "stopped", **fields: Any) -> Status:
    return status(services={each: ServiceStatus(state="running", pid=2) for each in ALL if each != name}
                  | {name: ServiceStatus(state=state, pid=None)}, **fields)  # fmt: skip


def shown(status: Status) -> str:
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(render(status))
    return console.export_text()


@pytest.mark.parametrize(
    ("seen", "reasons"),
    [
        (status(), []),
        (status(producer=ProducerStatus(state="waiting", note="banned until noon")), []),
        (status(producer=ProducerStatus(state="running")), []),
        (status(services={}, up_pid=None), []),  # containers
        (
            status(services={"kafka": ServiceStatus(state="running", pid=2)}),
            [f"{name} is not started yet" for name in ("board", "code-server", "daemon", "mongod", "webserver")],
        ),
        (status(up_pid=None), ["tickhouse up is gone: what ends is not started again. `tickhouse up` takes over"]),
        (with_service("kafka", state="suspended"), ["kafka is suspended"]),
        (with_service("mongod", state="hung"), ["mongod is hung"]),
        (with_stream(state="suspended"), ["stream moving is suspended"]),
        (status(producer=ProducerStatus(state="hung")), ["producer is hung"]),
        (with_stream(state="stopped", wanted=False), []),
        (with_service("simulator"), []),
        (with_service("board", board_url=None), []),
        (with_service("simulator", source="simulator"), ["simulator is stopped"]),
        (with_service("board"), ["board is stopped"]),
        (with_service("daemon"), ["daemon is stopped"]),
        (with_stream(state="stopped"), ["stream moving is stopped"]),
        (with_stream(state="starting"), ["stream moving is starting"]),
        (with_stream(state="given_up"), ["stream moving is given up"]),
        (status(producer=ProducerStatus(state="crashed")), ["producer is crashed"]),
        (status(problems=["Kafka does not answer"]), ["Kafka does not answer"]),
    ],
)
def test_what_is_not_at_work_is_named(seen: Status, reasons: list[str]) -> None:
    assert not_at_work(seen) == reasons


@pytest.mark.parametrize(
    ("fields", "count"),
    [({}, 100), ({"output_rows": 600}, 0), ({"lag": 3}, None), ({"lag": None}, None), ({"late": None}, None)],
)
def test_how_many_ticks_wait_for_later_ones(fields: dict[str, Any], count: int | None) -> None:
    assert not_final(with_stream(**fields)) == count


def test_a_recording_that_has_gone_through_says_what_waits_for_later_ticks() -> None:
    assert "100 ticks are not final yet: they wait" in shown(status())
    assert "1 tick is not final yet: it waits" in shown(with_stream(output_rows=599))
    assert "not final" not in shown(with_stream(output_rows=600))
    assert "query moving has 5 messages to go" in shown(
        status(drained=False, waiting_for=["query moving has 5 messages to go"])
    )
    assert "unknown how much" in shown(status(drained=False, waiting_for=["the end is not known"], problems=["Kafka"]))
    assert "Recording" not in shown(status(source="simulator"))


def test_what_is_not_known_is_not_shown_as_nothing() -> None:
    unknown = {name: CollectionStatus(documents=None, delta_version=None) for name in COLLECTIONS.values()}
    assert shown(status(load=unknown)).count("unknown") == len(COLLECTIONS)


@pytest.mark.parametrize("problems", [[], ["Kafka does not answer", "MongoDB does not answer"]])
def test_a_window_of_24_lines_has_all_collections(problems: list[str]) -> None:
    console = Console(width=80, height=24, file=io.StringIO())
    shown = "\n".join(
        "".join(segment.text for segment in line)
        for line in console.render_lines(fitting(status(problems=problems), console), pad=False)
    )
    assert shown.count("\n") < 24
    assert shown.count("500") >= len(COLLECTIONS)
    assert ("27017" in shown) is (not problems)
    tall = Console(width=80, height=50, file=io.StringIO())
    assert len(tall.render_lines(fitting(status(), tall))) > 24
