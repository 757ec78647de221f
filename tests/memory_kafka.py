"""A Kafka broker in memory, as far as publishing in transactions needs one, whose every call may go wrong.

It stands in for librdkafka's clients in `spark_jobs.sinks.kafka`. Sessions of one transactional id fence each other, a
transaction's messages and offsets become visible together, and a request that was tried again may arrive twice: the
second copy late, in the middle of a later transaction of the same session, as brokers let it (KAFKA-17754). That
brokers are as they are here is shown by `tests/integration/test_delayed_requests.py`, with a real one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Any, NamedTuple

from confluent_kafka import OFFSET_INVALID, KafkaError, KafkaException, TopicPartition

RETRY_SECONDS = 0.25
"""What a call takes, at least, in which the client has tried a request again."""


class Fault(Enum):
    """What may happen to a call."""

    CRASH_BEFORE = "the process dies before it"
    CRASH_AFTER = "the process dies when it is done"
    FAIL_BEFORE = "it fails, and is not done"
    FAIL_AFTER = "it fails, though it is done"
    RETRIED = "it is done at the second try, and a copy of the first arrives later"


class Crash(BaseException):
    """The process is dead: nothing that it would do next is done."""


class Message(NamedTuple):
    """What a reader of committed messages sees."""

    key: str
    value: bytes


class _Transaction:
    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.ended = False
        self.messages: list[tuple[str, Message]] = []
        self.offsets: dict[str, TopicPartition] = {}


class MemoryKafka:
    """The broker.

    `fault` is asked at each call of a client, by the call's name; None = all goes well. `delay`: before how many calls
    of the same client later a late request arrives, 0 = the next one.
    """

    def __init__(self, fault: Callable[[str], Fault | None], delay: Callable[[], int]) -> None:
        self.committed: dict[str, list[Message]] = {}
        """By topic: what a `read_committed` consumer sees."""
        self.groups: dict[str, TopicPartition] = {}
        """The committed offset of each group."""
        self.now = 0.0
        self._fault = fault
        self._delay = delay
        self._epochs: dict[str, int] = {}
        self._open: dict[str, _Transaction] = {}
        self._late: dict[tuple[str, int], int] = {}
        """Requests to end a transaction that are on their way, by transactional id and epoch: how many calls yet."""

    def monotonic(self) -> float:
        """The time that clients see, in seconds."""
        return self.now

    def call(self, name: str, do: Callable[[], Any], session: tuple[str, int] | None = None) -> Any:
        """One call of a client."""
        if session in self._late:
            self._deliver_late(session)
        fault = self._fault(name)
        if fault is Fault.CRASH_BEFORE:
            raise Crash
        if fault is Fault.FAIL_BEFORE:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
        answer = do()
        if fault is Fault.CRASH_AFTER:
            raise Crash
        if fault is Fault.FAIL_AFTER:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
        if fault is Fault.RETRIED:
            self.now += RETRY_SECONDS
            if name == "commit_transaction" and session is not None:
                self._late[session] = self._delay()
        return answer

    def begin_session(self, identity: str) -> int:
        """Fence the sessions before, whose open transaction is given up; returns the session's epoch."""
        self._epochs[identity] = self._epochs.get(identity, -1) + 1
        self._open.pop(identity, None)
        return self._epochs[identity]

    def transaction(self, identity: str, epoch: int) -> _Transaction:
        """The open one, made if there is none. Raises KafkaException for a session that is over."""
        if self._epochs[identity] != epoch:
            raise KafkaException(KafkaError(KafkaError._FENCED))
        transaction = self._open.setdefault(identity, _Transaction(epoch))
        if transaction.ended:
            raise KafkaException(KafkaError(KafkaError.INVALID_TXN_STATE))
        return transaction

    def commit(self, identity: str, epoch: int) -> None:
        """End a transaction: all of it becomes visible."""
        self._apply(self.transaction(identity, epoch))
        del self._open[identity]

    def _deliver_late(self, session: tuple[str, int]) -> None:
        self._late[session] -= 1
        if self._late[session] >= 0:
            return
        del self._late[session]
        identity, epoch = session
        transaction = self._open.get(identity)
        if self._epochs[identity] == epoch and transaction is not None:
            self._apply(transaction)
            transaction.ended = True

    def _apply(self, transaction: _Transaction) -> None:
        for topic, message in transaction.messages:
            self.committed.setdefault(topic, []).append(message)
        self.groups |= transaction.offsets


class MemoryProducer:
    """A transactional `confluent_kafka.Producer`, as far as `sinks` uses it."""

    def __init__(self, kafka: MemoryKafka, settings: Mapping[str, Any]) -> None:
        self._kafka = kafka
        self._identity = settings["transactional.id"]
        self._epoch = -1

    def __len__(self) -> int:
        return 0

    def list_topics(self, _topic: str, _timeout: float) -> None:
        """Ask for metadata."""
        self._call("list_topics", lambda: None)

    def init_transactions(self, _timeout: float) -> None:
        """Begin a session."""

        def begin() -> None:
            self._epoch = self._kafka.begin_session(self._identity)

        self._call("init_transactions", begin)

    def begin_transaction(self) -> None:
        """Nothing goes to the broker before the first message."""

    def produce_batch(self, topic: str, messages: Sequence[Mapping[str, Any]]) -> int:
        """Send messages; returns how many were taken."""

        def produce() -> None:
            transaction = self._kafka.transaction(self._identity, self._epoch)
            transaction.messages += [(topic, Message(message["key"], message["value"])) for message in messages]

        self._call("produce_batch", produce)
        return len(messages)

    def flush(self, _timeout: float) -> int:
        """All that was produced has arrived."""
        return 0

    def poll(self, _timeout: float) -> int:
        """Serve callbacks, of which there are none."""
        return 0

    def send_offsets_to_transaction(self, offsets: Sequence[TopicPartition], group: str, _timeout: float) -> None:
        """Commit an offset of the group with the transaction."""

        def send() -> None:
            self._kafka.transaction(self._identity, self._epoch).offsets[group] = offsets[0]

        self._call("send_offsets_to_transaction", send)

    def commit_transaction(self, _timeout: float) -> None:
        """End the transaction."""
        self._call("commit_transaction", lambda: self._kafka.commit(self._identity, self._epoch))

    def _call(self, name: str, do: Callable[[], Any]) -> None:
        self._kafka.call(name, do, (self._identity, self._epoch))


class MemoryConsumer:
    """A `confluent_kafka.Consumer`, as far as `sinks` uses it: it reads the committed offset of its group."""

    def __init__(self, kafka: MemoryKafka, settings: Mapping[str, Any]) -> None:
        self._kafka = kafka
        self._group = settings["group.id"]

    def committed(self, partitions: Sequence[TopicPartition], timeout: float) -> list[TopicPartition]:
        """The committed offset."""
        del timeout
        (asked,) = partitions
        none = TopicPartition(asked.topic, asked.partition, OFFSET_INVALID)
        found: TopicPartition = self._kafka.call("committed", lambda: self._kafka.groups.get(self._group, none))
        return [found]

    def consumer_group_metadata(self) -> str:
        """Of a client, an object; here the group's name."""
        return str(self._group)

    def close(self) -> None:
        """Nothing to let go of."""
