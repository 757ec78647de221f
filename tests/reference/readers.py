"""Reads a running system into a `Snapshot`: Kafka (committed messages only), Delta tables, MongoDB.

Every read ends: at the end of what is committed, or with one of the `UNREADABLE` errors after a time limit.
"""

from __future__ import annotations

import json
import os
import re
import time
import uuid
from typing import Any

from bson.codec_options import CodecOptions, DatetimeConversion
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka import Message as KafkaMessage
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError
from pymongo import MongoClient
from pymongo.errors import PyMongoError

from tests.reference.model import INPUT_TOPIC, Message
from tests.reference.snapshot import (
    COLLECTIONS,
    DATABASE,
    OUTPUT_TOPICS,
    TABLES,
    Collection,
    Record,
    Snapshot,
    Table,
)

_REQUEST_SECONDS = 15.0
_SILENCE_SECONDS = 60.0
_BATCH = 10_000


class Unreadable(RuntimeError):
    """A part of the system cannot be read; the text says which and why."""


UNREADABLE = (Unreadable, KafkaException, DeltaError, PyMongoError)
"""All that reading a system may raise."""


def read_system(bootstrap: str, lakehouse: str | None, mongo: str | None) -> Snapshot:
    """Everything there is; None leaves the tables or the collections out.

    The input is read first and its ends are looked at again at the close: had it grown, results of messages that were
    not read would look like errors, so that is reported as a fault of the reading.
    """
    snapshot = Snapshot(messages=[], topics={})
    consumer = _consumer(bootstrap)
    try:
        partitions = _partitions(consumer)
        if INPUT_TOPIC not in partitions:
            raise Unreadable(f"{bootstrap} has no topic {INPUT_TOPIC}")
        before = _ends(consumer, INPUT_TOPIC, partitions[INPUT_TOPIC])
        for partition, (first, _) in before.items():
            if first > 0:
                snapshot.faults.append(f"{INPUT_TOPIC} partition {partition} begins at {first}: its start is gone")
        snapshot.messages = [_message(one) for one in _read_topic(consumer, INPUT_TOPIC, partitions[INPUT_TOPIC])]
        for topic in OUTPUT_TOPICS:
            if topic in partitions:
                read = _read_topic(consumer, topic, partitions[topic])
                snapshot.topics[topic] = [
                    Record(one.partition() or 0, one.offset() or 0, _bytes(one.key()), _bytes(one.value()))
                    for one in read
                ]
        snapshot.notes.extend(_open_transactions(bootstrap, consumer, partitions))
        if lakehouse is not None:
            snapshot.tables = read_tables(lakehouse)
        if mongo is not None:
            snapshot.collections = read_collections(mongo)
        if _ends(consumer, INPUT_TOPIC, partitions[INPUT_TOPIC]) != before:
            snapshot.faults.append(f"{INPUT_TOPIC} grew while it was read: stop the producer first")
    finally:
        consumer.close()
    return snapshot


# --- Kafka ------------------------------------------------------------------------------------------------------


def _consumer(bootstrap: str, isolation: str = "read_committed") -> Consumer:
    return Consumer(
        {
            "bootstrap.servers": bootstrap,
            # Never joined: partitions are assigned by hand and nothing is committed.
            "group.id": f"reference-{uuid.uuid4()}",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "isolation.level": isolation,
            "auto.offset.reset": "error",
            "check.crcs": True,
        }
    )


def _partitions(consumer: Consumer) -> dict[str, list[int]]:
    topics = consumer.list_topics(timeout=_REQUEST_SECONDS).topics
    return {name: sorted(topic.partitions) for name, topic in topics.items() if topic.error is None}


def _ends(consumer: Consumer, topic: str, partitions: list[int]) -> dict[int, tuple[int, int]]:
    """(first offset, end) of each partition, asked of the broker."""
    ends = {}
    for partition in partitions:
        offsets = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=_REQUEST_SECONDS)
        if offsets is None:
            raise Unreadable(f"no answer about the offsets of {topic} partition {partition}")
        ends[partition] = offsets
    return ends


def _open_transactions(bootstrap: str, committed: Consumer, partitions: dict[str, list[int]]) -> list[str]:
    """A sentence for each output partition on which messages wait for the end of a transaction."""
    notes = []
    uncommitted = _consumer(bootstrap, "read_uncommitted")
    try:
        for topic in OUTPUT_TOPICS:
            stable = _ends(committed, topic, partitions.get(topic, []))
            for partition, (_, end) in _ends(uncommitted, topic, partitions.get(topic, [])).items():
                waiting = end - stable[partition][1]
                if waiting > 0:
                    notes.append(f"{topic} partition {partition}: {waiting} offsets wait for an open transaction")
    finally:
        uncommitted.close()
    return notes


def _read_topic(consumer: Consumer, topic: str, partitions: list[int]) -> list[KafkaMessage]:
    """All committed messages of a topic from its start up to the last stable offset."""
    consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in partitions])
    messages: list[KafkaMessage] = []
    unfinished = set(partitions)
    heard = time.monotonic()
    while unfinished:
        for message in consumer.consume(_BATCH, timeout=1.0):
            heard = time.monotonic()
            error = message.error()
            if error is None:
                messages.append(message)
            elif error.code() == KafkaError._PARTITION_EOF:
                # The end moves while a topic grows: what arrives after the first end is read only by chance.
                unfinished.discard(message.partition() or 0)
            elif error.fatal() or not error.retriable():
                raise KafkaException(error)
        if time.monotonic() - heard > _SILENCE_SECONDS:
            raise Unreadable(f"{topic}: nothing came for {_SILENCE_SECONDS:.0f} s, partitions {sorted(unfinished)}")
    consumer.unassign()
    return messages


def _message(message: KafkaMessage) -> Message:
    _, stamp = message.timestamp()
    return Message(
        message.partition() or 0, message.offset() or 0, stamp, _bytes(message.key()), _bytes(message.value())
    )


def _bytes(value: str | bytes | None) -> bytes | None:
    return value.encode() if isinstance(value, str) else value


# --- Delta ------------------------------------------------------------------------------------------------------


def read_tables(lakehouse: str) -> dict[str, Table]:
    """The tables that exist under a folder or URI; credentials of a remote store come from the environment."""
    base = re.sub("^s3a://", "s3://", lakehouse.rstrip("/"))
    options = {name: value for name, value in os.environ.items() if name.startswith(("AWS_", "AZURE_"))}
    tables = {}
    for name in TABLES:
        try:
            table = DeltaTable(f"{base}/{name}", storage_options=options if "://" in base else None)
        except TableNotFoundError:
            continue
        tables[name] = _table(table)
    return tables


def _table(table: DeltaTable) -> Table:
    schema = {field["name"]: _type_name(field["type"]) for field in json.loads(table.schema().to_json())["fields"]}
    content = table.to_pyarrow_table()
    columns: dict[str, list[Any]] = {}
    for name in content.column_names:
        column = content.column(name)
        if schema[name].startswith("timestamp"):
            column = column.cast("int64")
        elif schema[name] == "date":
            column = column.cast("int32")
        columns[name] = column.to_pylist()
    return Table(schema, list(table.metadata().partition_columns), columns, table.version())


def _type_name(kind: Any) -> str:
    """A Delta type as one word: array<struct<window:string,…>>."""
    if isinstance(kind, str):
        return kind
    if kind["type"] == "array":
        return f"array<{_type_name(kind['elementType'])}>"
    if kind["type"] == "struct":
        return "struct<" + ",".join(f"{one['name']}:{_type_name(one['type'])}" for one in kind["fields"]) + ">"
    return str(kind)


# --- MongoDB ----------------------------------------------------------------------------------------------------


def read_collections(mongo: str) -> dict[str, Collection]:
    """The six collections by window, those that exist, read with majority concern: what a crash cannot take back."""
    options: CodecOptions[dict[str, Any]] = CodecOptions(
        document_class=dict, datetime_conversion=DatetimeConversion.DATETIME_MS
    )
    collections = {}
    with MongoClient[dict[str, Any]](mongo, serverSelectionTimeoutMS=int(_REQUEST_SECONDS * 1000)) as client:
        database = client.get_database(DATABASE, codec_options=options)
        existing = set(database.list_collection_names())
        for window, name in COLLECTIONS.items():
            if name not in existing:
                continue
            collection = database[name]
            indexes = [
                [(str(field), order) for field, order in one["key"]] for one in collection.index_information().values()
            ]
            collections[window] = Collection(list(collection.find({}, batch_size=10_000)), indexes)
    return collections
