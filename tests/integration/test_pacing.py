"""Waiting for another stream's results on a real broker: committed transactions end it, open ones do not."""

from __future__ import annotations

import threading
import time
import uuid

import pytest
from confluent_kafka import Producer

from orchestration.local.broker import create_topics
from spark_jobs.shutdown import StopRequest
from spark_jobs.sources.result_wait import ResultWait

pytestmark = pytest.mark.integration

LONG = 20.0


@pytest.fixture
def topic(broker: str) -> str:
    name = f"news-{uuid.uuid4().hex}"
    create_topics(broker, [name])
    return name


@pytest.fixture
def news(broker: str, topic: str) -> ResultWait:
    """Whoever waits for what comes from now on."""
    found = ResultWait([topic], {"bootstrap.servers": broker})
    waited(found, LONG)
    return found


def waited(news: ResultWait, seconds: float, stopping: StopRequest | None = None) -> float:
    began = time.monotonic()
    news.wait(began + seconds, stopping or StopRequest())
    return time.monotonic() - began


def in_transaction(broker: str, topic: str) -> Producer:
    producer = Producer({"bootstrap.servers": broker, "transactional.id": topic})
    producer.init_transactions(60)
    producer.begin_transaction()
    producer.produce(topic, b"result", partition=2)
    producer.flush(60)
    return producer


def test_what_is_committed_ends_the_wait_and_what_is_not_does_not(broker: str, topic: str, news: ResultWait) -> None:
    producer = in_transaction(broker, topic)
    assert waited(news, 1.0) >= 1.0
    commit = threading.Timer(0.5, producer.commit_transaction, (60,))
    commit.start()
    assert 0.4 < waited(news, LONG) < LONG
    commit.join()


def test_what_was_committed_meanwhile_needs_no_wait_and_only_once(broker: str, topic: str, news: ResultWait) -> None:
    in_transaction(broker, topic).commit_transaction(60)
    assert waited(news, LONG) < LONG
    assert waited(news, 0.5) >= 0.5


def test_a_request_to_stop_ends_the_wait(news: ResultWait) -> None:
    stopping = StopRequest()
    threading.Timer(0.3, stopping.set).start()
    assert waited(news, LONG, stopping) < LONG


def test_without_a_broker_the_whole_time_passes(caplog: pytest.LogCaptureFixture) -> None:
    nobody = ResultWait(["topic"], {"bootstrap.servers": "127.0.0.1:1"})
    assert waited(nobody, 6.0) >= 6.0
    assert "waiting a whole interval" in caplog.text
