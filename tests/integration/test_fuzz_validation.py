"""A hundred thousand messages through the accept rule by every route there is: all must agree with the reference.

The routes: the reference, the rule for one message, that for batches, `pack` on blocks cut anyhow, and both expressions
in a real Spark.
`TICKHOUSE_FUZZ_SEED` and `TICKHOUSE_FUZZ_MESSAGES` try others than the usual ones.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from decimal import Decimal
from pathlib import Path
from random import Random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from orchestration.local.artifacts import spark_jars
from orchestration.local.java import Java
from orchestration.settings import PROJECT_ROOT
from spark_jobs.sources.packing import pack, unpack
from tests.batch_verdicts import batch_verdicts
from tests.reference import acceptance
from tests.reference.fuzz import Fuzzed, fuzz
from tickhouse.contract.names import TICKS_TOPIC
from tickhouse.contract.validation import Tick, accept
from tickhouse.kafka.range_reader import RECORD_SCHEMA

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]
SEED = int(os.environ.get("TICKHOUSE_FUZZ_SEED", "20250508"))
MESSAGES = int(os.environ.get("TICKHOUSE_FUZZ_MESSAGES", "100000"))

Verdicts = dict[int, tuple[str, int, int]]
"""Offset of each message that is a tick -> symbol, price in 1e-8, timestamp in ms."""


@pytest.fixture(scope="module")
def messages() -> list[Fuzzed]:
    print(f"fuzz seed {SEED}, {MESSAGES} messages")
    return list(fuzz(SEED, MESSAGES))


@pytest.fixture(scope="module")
def expected(messages: list[Fuzzed]) -> Verdicts:
    verdicts: Verdicts = {}
    for offset, message in enumerate(messages):
        try:
            tick = acceptance.accept(*message)
        except acceptance.Rejected:
            continue
        verdicts[offset] = (tick.symbol, tick.units, tick.timestamp)
    assert 0.3 < len(verdicts) / len(messages) < 0.7, "the messages must be neither all good nor all bad"
    return verdicts


@pytest.fixture(scope="module")
def records(messages: list[Fuzzed]) -> pa.Table:
    return pa.table(
        [
            [TICKS_TOPIC] * len(messages),
            [0] * len(messages),
            range(len(messages)),
            [-1 if message.record_timestamp is None else message.record_timestamp for message in messages],
            [message.key for message in messages],
            [message.value for message in messages],
        ],
        schema=RECORD_SCHEMA,
    )


def agree(found: Verdicts, expected: Verdicts, messages: list[Fuzzed]) -> None:
    """Fail with the shortest of the messages about which the two differ."""
    differing = [offset for offset in found.keys() | expected.keys() if found.get(offset) != expected.get(offset)]
    if differing:
        offset = min(differing, key=lambda each: len(messages[each].value or b""))
        pytest.fail(
            f"seed {SEED}: {len(differing)} differ, the shortest is message {offset}, {str(messages[offset])[:2_000]}: "
            f"found {found.get(offset)}, must be {expected.get(offset)}"
        )


def unpacked(batches: Iterable[pa.RecordBatch]) -> tuple[Verdicts, int]:
    """The ticks in packed rows, and how many messages were rejected."""
    verdicts: Verdicts = {}
    rejected = 0
    for batch in batches:
        for row in batch.to_pylist():
            messages = unpack([row["content"]])
            rejected += messages.rejected
            assert not messages.statistics
            for symbol, ticks in messages.ticks.items():
                for offset, price, timestamp in zip(ticks.offsets, ticks.prices, ticks.timestamps, strict=True):
                    assert int(offset) not in verdicts
                    verdicts[int(offset)] = (symbol, int(price), int(timestamp))
    return verdicts, rejected


def test_the_rule_for_one_message(messages: list[Fuzzed], expected: Verdicts) -> None:
    found: Verdicts = {}
    for offset, message in enumerate(messages):
        verdict = accept(*message)
        if isinstance(verdict, Tick):
            found[offset] = (verdict.symbol, verdict.price, verdict.timestamp)
        else:
            assert verdict.reason
    agree(found, expected, messages)


def test_the_rule_for_a_batch(messages: list[Fuzzed], expected: Verdicts) -> None:
    verdicts = batch_verdicts(*zip(*messages, strict=True))
    found: Verdicts = {offset: verdict for offset, verdict in enumerate(verdicts) if isinstance(verdict, Tick)}
    agree(found, expected, messages)
    assert verdicts == [accept(*message) for message in messages], "the reasons, too, are those of the rule for one"


def test_packed_in_blocks_of_any_size(messages: list[Fuzzed], expected: Verdicts, records: pa.Table) -> None:
    random = Random(SEED)

    def blocks() -> Iterator[pa.RecordBatch]:
        at = 0
        while at < len(records):
            size = random.choice((1, 2, 100, 10_000))
            yield from records.slice(at, size).combine_chunks().to_batches()
            at += size
        # What is all good, and what is all bad.
        good = pa.array([offset in expected for offset in range(len(records))])
        for part in (records.filter(good), records.filter(pa.compute.invert(good))):
            yield from part.set_column(2, "offset", pa.compute.add(part["offset"], len(records))).to_batches()

    found, rejected = unpacked(pack(blocks(), buckets=8))
    agree({offset: found[offset] for offset in found if offset < len(records)}, expected, messages)
    agree({offset - len(records): found[offset] for offset in found if offset >= len(records)}, expected, messages)
    assert rejected == 2 * (len(messages) - len(expected))


def test_as_spark_expressions(
    messages: list[Fuzzed], expected: Verdicts, records: pa.Table, tmp_path: Path, tools: Path, java: Java
) -> None:
    files = [str(tmp_path / name) for name in ("records.parquet", "classified.parquet", "packed.parquet")]
    pq.write_table(records, files[0])
    environment = os.environ | {"JAVA_HOME": str(java.path), "TICKHOUSE_JARS": str(spark_jars(tools))}
    with (tmp_path / "log").open("w") as log:
        subprocess.run(
            [sys.executable, "-m", "tests.spark_verdicts", *files],
            cwd=PROJECT_ROOT,
            env=environment,
            stdout=log,
            stderr=log,
            timeout=200,
            check=True,
        )
    packed, rejected = unpacked(pq.read_table(files[2]).to_batches())
    agree(packed, expected, messages)
    assert rejected == len(messages) - len(expected)

    classified = pq.read_table(files[1])
    assert sorted(classified["offset"].to_pylist()) == list(range(len(messages)))
    found: Verdicts = {}
    milliseconds = pa.compute.divide(classified["timestamp"].cast(pa.int64()), 1_000).to_pylist()
    columns = [classified[name].to_pylist() for name in ("offset", "symbol", "price", "reason", "raw")]
    for offset, symbol, price, reason, raw, timestamp in zip(*columns, milliseconds, strict=True):
        if reason is None:
            assert raw is None
            found[offset] = (symbol, int(price * Decimal(10**8)), timestamp)
        else:
            assert reason
            assert (symbol, price, timestamp) == (None, None, None)
            assert raw == messages[offset].value
    agree(found, expected, messages)
