"""Telling a webhook: a real receiver that is good, away, slow or endless, and the queue of what is still to be told."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from orchestration.monitoring.webhook import post
from orchestration.monitoring.webhook_queue import FIRST_PAUSE, KEPT_MESSAGES, KEPT_SECONDS, LONGEST_PAUSE, WebhookQueue
from tests.webhook_receiver import Receiver


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    opened = Receiver()
    yield opened
    opened.stop()


def test_a_text_arrives_as_slack_takes_it(receiver: Receiver) -> None:
    assert post(receiver.address, "a < b & c: ±2σ", 2) is None
    assert receiver.texts == ["a &lt; b &amp; c: ±2σ"]


@pytest.mark.parametrize("status", [302, 404, 429, 500])
def test_a_bad_status_is_a_failure(receiver: Receiver, status: int) -> None:
    receiver.status = status
    assert post(receiver.address, "x", 2) == f"the webhook answers {status}"


@pytest.mark.parametrize("kind", ["slow", "endless", "away", "nonsense"])
def test_nothing_takes_longer_than_it_may_nor_tells_the_address(receiver: Receiver, kind: str) -> None:
    receiver.slow_seconds = 5.0 if kind == "slow" else 0.0
    receiver.endless = kind == "endless"
    addresses = {"away": "http://127.0.0.1:1/s3cr3t", "nonsense": "http://[s3cr3t/"}
    began = time.monotonic()
    said = post(addresses.get(kind, receiver.address), "x", 0.5)
    assert time.monotonic() - began < 2
    assert said is not None and said.startswith("the webhook does not answer (") and "s3cr3t" not in said


class Clock:
    """A clock that is set by hand, and a webhook that is told texts unless it is down."""

    def __init__(self) -> None:
        self.now = 1_000_000.0
        self.told: list[str] = []
        self.attempts: list[float] = []
        self.up = True
        self.takes = 0.0

    def post(self, text: str, _seconds: float) -> str | None:
        self.attempts.append(self.now)
        self.now += self.takes
        if not self.up:
            return "down"
        self.told.append(text)
        return None

    def deliver(self, outbox: WebhookQueue) -> str | None:
        return outbox.deliver(self.post, lambda: self.now, 3.0)


def test_all_is_told_in_order() -> None:
    clock, outbox = Clock(), WebhookQueue()
    for text in ("raised", "cleared"):
        outbox.add(text, clock.now)
    assert clock.deliver(outbox) is None
    assert clock.told == ["raised", "cleared"] and outbox.messages == []


def test_failures_are_followed_by_growing_pauses_and_the_order_is_kept() -> None:
    clock, outbox = Clock(), WebhookQueue()
    clock.up = False
    outbox.add("raised", clock.now)
    began = clock.now
    for _ in range(80):
        outbox = WebhookQueue.model_validate_json(outbox.model_dump_json())
        clock.deliver(outbox)
        clock.now += 15
        if clock.now == began + 300:
            outbox.add("cleared", clock.now)
    pauses = [later - earlier for earlier, later in zip(clock.attempts, clock.attempts[1:], strict=False)]
    assert pauses == [FIRST_PAUSE, 30, 60, 120, 240, LONGEST_PAUSE, LONGEST_PAUSE]
    clock.up = True
    clock.now += LONGEST_PAUSE
    assert clock.deliver(outbox) is None
    assert clock.told == ["raised", "cleared"]
    assert outbox.failures == 0


def test_a_slow_receiver_gets_one_part_after_the_other() -> None:
    clock, outbox = Clock(), WebhookQueue()
    clock.takes = 2.0
    for number in range(5):
        outbox.add(str(number), clock.now)
    clock.deliver(outbox)
    assert clock.told == ["0", "1"]
    clock.deliver(outbox)
    clock.deliver(outbox)
    assert clock.told == ["0", "1", "2", "3", "4"]


def test_what_nobody_takes_is_dropped_and_told() -> None:
    clock, outbox = Clock(), WebhookQueue()
    outbox.add("old", clock.now)
    outbox.add("young", clock.now + 10)
    assert [message.text for message in outbox.drop_old(clock.now + KEPT_SECONDS)] == ["old"]
    for number in range(KEPT_MESSAGES):
        outbox.add(str(number), clock.now + 20)
    assert [message.text for message in outbox.drop_old(clock.now + 20)] == ["young"]


def test_a_clock_that_was_set_back_blocks_nothing() -> None:
    clock, outbox = Clock(), WebhookQueue()
    clock.up = False
    outbox.add("raised", clock.now)
    clock.deliver(outbox)
    clock.up, clock.now = True, clock.now - 10_000
    clock.deliver(outbox)
    assert clock.told == ["raised"]
