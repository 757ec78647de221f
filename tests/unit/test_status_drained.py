"""When a finite source has gone through everything, as a table of cases, and the small parts of the status."""

from __future__ import annotations

import copy
import datetime
from collections.abc import Callable
from typing import Any

import pytest

from orchestration.lakehouse.tables import TableVersion
from orchestration.mongo_address import without_password, without_secrets
from orchestration.monitoring.status import waiting_for
from orchestration.serving.mongo import COLLECTIONS, Loaded
from orchestration.settings import Endpoints
from orchestration.supervision.lag import archive_lag, lag, stream_lag
from tickhouse.contract.topology import JOBS, TOPICS

SOURCE = "replay:/data/ticks.jsonl.gz"
ENDS = {topic: {0: 10, 1: 0, 2: 7, 3: 0} for topic in TOPICS}


def done() -> dict[str, Any]:
    """Everything as it is when all is done."""
    heartbeats = {
        name: {
            "queries": {
                query: {"offsets": {topic: {str(p): end for p, end in ENDS[topic].items()} for topic in topics}}
                for query, topics in spec.queries.items()
            }
        }
        for name, spec in JOBS.items()
    }
    moment = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    return {
        "source": SOURCE,
        "producer": {"source": SOURCE, "state": "ended"},
        "heartbeats": heartbeats,
        "ends": copy.deepcopy(ENDS),
        "zscores": TableVersion("t", 5),
        "loaded": {name: Loaded("t", 5, 17, moment) for name in COLLECTIONS.values()},
    }


def offsets(given: dict[str, Any], job: str, query: str) -> dict[str, Any]:
    found: dict[str, Any] = given["heartbeats"][job]["queries"][query]["offsets"]
    return found


def test_done_is_drained() -> None:
    assert waiting_for(**done()) == []


LAST = COLLECTIONS["1h"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda g: g.update(source=None), "there is no source"),
        (lambda g: g.update(source="binance"), "the source has no end"),
        (lambda g: g.update(source="simulator"), "the source has no end"),
        (lambda g: g.update(producer={}), "the source has not begun"),
        (lambda g: g.update(source="replay:/data/other.jsonl"), "the source has not begun"),
        (lambda g: g["producer"].update(state="running"), "the source has not ended"),
        (lambda g: g["producer"].update(state="stopped"), "the source has not ended"),
        (lambda g: g["producer"].update(state="failed"), "the source has not ended"),
        (lambda g: offsets(g, "prices", "prices")["btc-price"].update({"2": 6}), "query prices has 1 messages to go"),
        (lambda g: offsets(g, "moving", "moving")["btc-price"].update({"0": 0}), "query moving has 10 messages to go"),
        (lambda g: offsets(g, "trend", "higher").clear(), "query higher has 17 messages to go"),
        (lambda g: g["heartbeats"]["trend"]["queries"].pop("lower"), "query lower has 17 messages to go"),
        (lambda g: g["heartbeats"].pop("zscore"), "query zscore has 34 messages to go"),
        (lambda g: g["ends"]["btc-price-zscore"].update({3: 2}), "query zscores has 2 messages to go"),
        (lambda g: g["ends"]["btc-price-moving"].update({1: 1}), "query zscore has 1 messages to go"),
        (lambda g: g["ends"].pop("btc-price-lower"), "the end of btc-price-lower is not known"),
        (lambda g: g.update(ends={}), "the end of btc-price is not known"),
        (lambda g: g.update(zscores=None), "there is no table zscores"),
        (lambda g: g.update(zscores=TableVersion("t", 6)), f"collection {LAST} is not up to date"),
        (lambda g: g.update(zscores=TableVersion("new", 5)), f"collection {LAST} is not up to date"),
        (lambda g: g["loaded"].pop(LAST), f"collection {LAST} is not up to date"),
        (lambda g: g.update(loaded={}), f"collection {LAST} is not up to date"),
    ],
)
def test_anything_missing_is_told(change: Callable[[dict[str, Any]], object], reason: str) -> None:
    given = done()
    change(given)
    assert reason in waiting_for(**given)


def test_lag_counts_what_was_never_read_and_never_goes_below_zero() -> None:
    assert lag(ENDS, {}, ["btc-price"]) == 17
    assert lag(ENDS, {"btc-price": {0: 4, 2: 9}}, ["btc-price"]) == 6
    assert lag(ENDS, {}, ["no-such-topic"]) is None


def test_lags_of_a_job_are_of_its_computation_and_of_its_copies() -> None:
    given = done()
    offsets(given, "trend", "trend")["btc-price"]["0"] = 7
    offsets(given, "trend", "higher")["btc-price-higher"]["2"] = 2
    heartbeat = given["heartbeats"]["trend"]
    assert stream_lag(JOBS["trend"], heartbeat, ENDS) == 3
    assert archive_lag(JOBS["trend"], heartbeat, ENDS) == 5
    assert archive_lag(JOBS["prices"], given["heartbeats"]["prices"], ENDS) is None
    assert stream_lag(JOBS["trend"], {}, ENDS) is None
    assert stream_lag(JOBS["trend"], heartbeat, {}) is None


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("mongodb://127.0.0.1:27017/?journal=true", "mongodb://127.0.0.1:27017/?journal=true"),
        ("mongodb://anna:secret@db/?w=1", "mongodb://***@db/?w=1"),  # pragma: allowlist secret
        ("mongodb+srv://anna:p%40ss@db.example/", "mongodb+srv://***@db.example/"),  # pragma: allowlist secret
        ("mongodb://anna:p@s/s@db,other:1/x?w=1", "mongodb://***@db,other:1/x?w=1"),  # pragma: allowlist secret
        (
            "mongodb://db/?tls=true&TlsCertificateKeyFilePassword=s&w=1",
            "mongodb://db/?tls=true&TlsCertificateKeyFilePassword=***&w=1",
        ),
    ],
)
def test_passwords_are_not_shown(uri: str, shown: str) -> None:
    assert without_password(uri) == shown


@pytest.mark.parametrize(
    ("uri", "kept"),
    [
        ("mongodb://127.0.0.1:27017/?journal=true", "mongodb://127.0.0.1:27017/?journal=true"),
        ("mongodb://anna:p%40ss@db,other:1/x?w=1", "mongodb://db,other:1/x?w=1"),  # pragma: allowlist secret
        ("mongodb://db/?authMechanismProperties=AWS_SESSION_TOKEN:s&w=1", "mongodb://db/?w=1"),
        ("mongodb://db/?tlsCertificateKeyFilePassword=s", "mongodb://db/"),
    ],
)
def test_passwords_are_not_kept(uri: str, kept: str) -> None:
    assert without_secrets(uri) == kept
    endpoints = Endpoints(kafka_bootstrap="k:1", mongo_uri=uri, lakehouse="l", checkpoints="c", source="simulator")
    assert endpoints.mongo_uri == kept
