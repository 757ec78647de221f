"""Handing messages to Kafka: in order, exactly once per session, bounded, and loud when something cannot be
delivered.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from typing import Any

from kafka import KafkaProducer  # type: ignore[import-untyped]
from kafka.errors import KafkaError, KafkaTimeoutError  # type: ignore[import-untyped]
from kafka.partitioner.default import murmur2  # type: ignore[import-untyped]

from producer.heartbeat import Progress

Header = tuple[str, bytes]

_ATTEMPT_MS = 2_000
_RETRY_SECONDS = 0.5
_QUIET_SECONDS = 5.0  # without an acknowledgement for so long, the broker counts as away
_ROOM_SECONDS = 0.01
_BATCH_BYTES = 131_072
_LARGEST_REQUEST = 1_000_000  # a broker's own limit is a little above

_log = logging.getLogger(__name__)


class DeliveryError(Exception):
    """A message could not be delivered, or never will be; the text says why and what to do."""


class Stopped(Exception):
    """A stop was asked for while waiting; what was to be sent has not been sent."""


class Publisher:
    """One idempotent producer (`acks=all`) onto one topic. Sending is for one thread only.

    Messages wait in memory while the broker is away, `buffer_messages` at most, and go out in order when it is back.
    The first message that cannot be delivered within `delivery_seconds` ends all sending: were the following ones of
    the partition sent, there would be a gap that nobody could see.
    """

    def __init__(
        self,
        bootstrap: str,
        topic: str,
        progress: Progress,
        stop: threading.Event,
        *,
        security: Mapping[str, str],
        buffer_messages: int,
        delivery_seconds: float,
        wait_seconds: float,
    ) -> None:
        """Connect, waiting at most `wait_seconds`. Raises DeliveryError, or Stopped when `stop` is set meanwhile.

        `security`: the client's arguments beside the address (`kafka_access.client_security`).
        """
        self._topic = topic
        self._progress = progress
        self._stop = stop
        self._buffer_messages = buffer_messages
        self._error: BaseException | None = None
        self._quiet_since = time.monotonic()
        self._partition_of_key: dict[bytes, int] = {}
        self._producer: Any = None
        self.partitions = 0
        """How many partitions the topic has."""
        self._connect(bootstrap, security, delivery_seconds, time.monotonic() + wait_seconds, wait_seconds)

    @property
    def waiting(self) -> int:
        """Messages sent and not acknowledged."""
        return self._progress.sent - self._progress.acknowledged

    def partition_of_key(self, key: bytes) -> int:
        """The partition of a key, as Kafka's clients agree on it."""
        partition = self._partition_of_key.get(key)
        if partition is None:
            if len(self._partition_of_key) > 100_000:
                self._partition_of_key.clear()
            partition = self._partition_of_key[key] = (murmur2(key) & 0x7FFFFFFF) % self.partitions
        return partition

    def send(
        self,
        key: bytes | None,
        value: bytes,
        partition: int,
        headers: list[Header] | None = None,
        record_ms: int | None = None,
    ) -> None:
        """Send one message; returns once it is in the buffer, which it waits for.

        `record_ms` is the record's own timestamp in milliseconds since the epoch, the time of sending when None.
        Raises DeliveryError, or Stopped when a stop was asked for before there was room.
        """
        if self._error is not None or self.waiting >= self._buffer_messages:
            self._wait_for_room()
        if self.waiting == 0:
            self._quiet_since = time.monotonic()
        self._progress.sent += 1
        try:
            future = self._append(key, value, partition, headers, record_ms)
        except BaseException:
            self._progress.sent -= 1
            raise
        future.add_callback(self._acknowledged)
        future.add_errback(self._failed)

    def check(self) -> str | None:
        """What to say about the broker now, None while all is well. Raises DeliveryError."""
        if self._error is not None:
            raise self._delivery_error()
        waiting = self.waiting
        quiet = time.monotonic() - self._quiet_since
        if waiting == 0 or quiet < _QUIET_SECONDS:
            return None
        full = ", the buffer is full and nothing more is taken in" if waiting >= self._buffer_messages else ""
        return f"the broker has confirmed nothing for {quiet:.0f} s; {waiting} messages wait for it{full}"

    def has_room(self) -> bool:
        """Whether a message more may be sent without waiting. Raises DeliveryError."""
        if self._error is not None:
            raise self._delivery_error()
        return self.waiting < self._buffer_messages

    def flush(self, seconds: float) -> None:
        """Wait until everything sent is acknowledged. Raises DeliveryError, also when `seconds` were not enough."""
        deadline = time.monotonic() + seconds
        while self.waiting:
            self.check()
            if time.monotonic() > deadline:
                raise DeliveryError(
                    f"{self.waiting} messages were not confirmed by the broker within {seconds:.0f} s and may be lost"
                )
            time.sleep(_ROOM_SECONDS)
        self.check()

    def close(self) -> None:
        """Let go of the broker. Whatever is not acknowledged by now is given up."""
        if self._producer is None:
            return
        if self.waiting:
            self._halt()
        try:
            self._producer.close(timeout=5)
        except KafkaError as error:
            _log.warning("while closing: %s", error)

    def _connect(
        self,
        bootstrap: str,
        security: Mapping[str, str],
        delivery_seconds: float,
        deadline: float,
        wait_seconds: float,
    ) -> None:
        while True:
            try:
                if self._producer is None:
                    self._producer = KafkaProducer(
                        bootstrap_servers=bootstrap.split(","),
                        **security,
                        client_id="tickhouse-producer",
                        enable_idempotence=True,
                        acks="all",
                        delivery_timeout_ms=round(delivery_seconds * 1_000),
                        request_timeout_ms=15_000,
                        # An upper limit of half a minute between attempts, the default, would delay what waits.
                        reconnect_backoff_max_ms=1_000,
                        max_block_ms=_ATTEMPT_MS,
                        bootstrap_timeout_ms=_ATTEMPT_MS,
                        allow_auto_create_topics=False,
                        metrics_enabled=False,
                        batch_size=_BATCH_BYTES,
                        max_request_size=_LARGEST_REQUEST,
                    )
                partitions = self._producer.partitions_for(self._topic)
                if partitions != set(range(len(partitions))):
                    raise DeliveryError(f"the topic {self._topic} has partitions {partitions}, not 0 to n")
                self.partitions = len(partitions)
                return
            except KafkaError as error:
                if self._producer is None:
                    note = f"no Kafka broker answers at {bootstrap}: {error}"
                    remedy = "start it, or set TICKHOUSE_KAFKA_BOOTSTRAP to where it is"
                    if security:
                        remedy += ", and see whether TICKHOUSE_KAFKA_SECURITY_PROTOCOL, "
                        remedy += "_USERNAME, _PASSWORD and _CA_FILE suit it"
                else:
                    note = f"the broker at {bootstrap} has no topic {self._topic}: {error}"
                    remedy = "create the topic; `tickhouse up` does that"
            self._progress.change("waiting", note)
            if time.monotonic() > deadline:
                self.close()
                raise DeliveryError(f"{note}; waited {wait_seconds:.0f} s; {remedy}")
            if self._stop.wait(_RETRY_SECONDS):
                self.close()
                raise Stopped

    def _append(
        self, key: bytes | None, value: bytes, partition: int, headers: list[Header] | None, record_ms: int | None
    ) -> Any:
        while True:
            try:
                return self._producer.send(
                    self._topic, value=value, key=key, headers=headers, partition=partition, timestamp_ms=record_ms
                )
            except KafkaTimeoutError as error:  # what the client knows about the topic was lost and is not back yet
                self._progress.change("waiting", f"the broker does not answer: {error}")
                if self._stop.is_set():
                    raise Stopped from error
            except KafkaError as error:
                raise DeliveryError(f"a message was refused by Kafka's client: {error}") from error

    def _wait_for_room(self) -> None:
        while not self.has_room():
            note = self.check()
            if note:
                self._progress.change("waiting", note)
            if self._stop.wait(_ROOM_SECONDS):
                raise Stopped
        self._progress.change("running")

    def _acknowledged(self, _metadata: object) -> None:
        self._progress.acknowledged += 1
        self._quiet_since = time.monotonic()

    def _failed(self, error: BaseException) -> None:
        """Called in the client's own thread, before it can send anything further."""
        if self._error is None:
            self._error = error
            self._halt()

    def _halt(self) -> None:
        # The client has no public way to stop at once: close() first waits for the messages that are to be given up.
        self._producer._sender.force_close()

    def _delivery_error(self) -> DeliveryError:
        return DeliveryError(
            f"a message was not delivered, and {self.waiting} are not confirmed: {self._error}; "
            "see the broker's log, then start the producer again"
        )
