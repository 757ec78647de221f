"""Reconcile and backfill of what the real streams have written, and that they go on writing after it."""

import datetime
from pathlib import Path

import dagster as dg
import pytest
from confluent_kafka import Producer
from deltalake import DeltaTable

from orchestration.definitions import build_definitions
from orchestration.lakehouse.tables import Lakehouse
from orchestration.local import processes
from orchestration.local.broker import create_topics
from orchestration.local.java import Java
from orchestration.recompute.backfill import backfill
from orchestration.recompute.expected_rows import RESULT_TABLES
from orchestration.recompute.reconcile import Findings, reconcile
from orchestration.settings import OrchestrationSettings
from tests.dagster.conftest import RealHome
from tests.dagster.test_streams_real import materialise
from tests.history_tables import History
from tests.integration.test_history import alter, times
from tests.own_broker import OwnBroker
from tests.reference.stream import generate
from tickhouse.contract.topology import TOPICS

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600), pytest.mark.whole_machine]

SYMBOL = "HISTORYUSDT"
LATENESS_MS = 10_000


def publish(bootstrap: str, lines: list[bytes]) -> None:
    producer = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True})
    for line in lines:
        producer.produce("btc-price", line, SYMBOL)
    assert producer.flush(30) == 0


def compared(lakehouse: str) -> dict[str, Findings]:
    until = datetime.datetime(2025, 5, 10, tzinfo=datetime.UTC)
    return {each.table: each for each in reconcile(lakehouse, LATENESS_MS, minutes=2_880, until=until)}


def test_what_streams_wrote_is_what_follows_from_the_prices_and_can_be_replaced_under_them(
    java: Java,
    mongo_uri: str,
    tools: Path,
    home: Path,
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # What other tests have published must not be in the topics.
    node = OwnBroker(home, java, tools)
    node.start()
    broker = node.bootstrap
    RealHome(broker, mongo_uri, tools).use(monkeypatch)
    create_topics(broker, TOPICS)
    settings = OrchestrationSettings.read(home=home)
    loaded = build_definitions(settings)
    processes.run_folder(home)
    lines = [line.value for line in generate(7, [SYMBOL], 4_000)]
    later = int(len(lines) * 0.8)
    publish(broker, lines[:later])
    for job in ("prices", "moving", "zscore", "trend"):
        materialise(loaded, instance, job)

    found = compared(settings.lakehouse)
    assert all(each.passed for each in found.values()), [each.text() for each in found.values()]
    assert all(each.compared > 1_000 for each in found.values())

    stored = _Stored(settings.lakehouse)
    for table in RESULT_TABLES:
        alter(stored, table, SYMBOL, times(stored, table, SYMBOL)[500])
        assert compared(settings.lakehouse)[table].counts["differing"] == 1
    for day in (datetime.date(2025, 5, 8), datetime.date(2025, 5, 9)):
        done = list(backfill(Lakehouse(settings.lakehouse), home, day, LATENESS_MS))
        assert [each.table for each in done] == list(RESULT_TABLES)
    found = compared(settings.lakehouse)
    assert all(each.passed for each in found.values()), [each.text() for each in found.values()]
    assert any(each.backfilled for each in found.values())

    # Spark appends to what was replaced, each micro-batch once.
    versions = {table: DeltaTable(settings.lakehouse + f"/{table}").version() for table in RESULT_TABLES}
    publish(broker, lines[later:])
    for job in ("prices", "moving", "zscore", "trend"):
        materialise(loaded, instance, job)
    found = compared(settings.lakehouse)
    assert all(each.passed for each in found.values()), [each.text() for each in found.values()]
    for table, version in versions.items():
        assert DeltaTable(settings.lakehouse + f"/{table}").version() > version


class _Stored(History):
    """Tables that are there already."""

    def __init__(self, lakehouse: str) -> None:
        self.lakehouse = Path(lakehouse)
