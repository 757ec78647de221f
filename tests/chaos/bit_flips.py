"""Single flipped bits in what is on disk: `python -m tests.chaos.bit_flips [--flips 100] [--seed 1] [--break checks]`.

Each flip is made in a random file of a kind, the files are read by what reads them in the product, and the bit is put
back. What is read must be refused or be what was written. Exit code 0 when it is, each time. With `--break checks`
the checksums are taken away, or not looked at, which must be found out.
"""

from __future__ import annotations

import argparse
import datetime
import os
import shutil
import sys
import tarfile
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import pyarrow as pa
import pytest
from confluent_kafka import Consumer, Producer

from orchestration.lakehouse.sql import query
from orchestration.lakehouse.tables import Lakehouse
from orchestration.local.artifacts import spark_jars
from orchestration.local.broker import create_topics
from orchestration.local.home import mark as mark_home
from orchestration.local.home import require_removable
from orchestration.local.home_marker import NotOurs, read_marker
from orchestration.local.java import find_java
from orchestration.settings import PROJECT_ROOT
from spark_jobs.checkpoints.checkpoint import Checkpoint
from spark_jobs.checkpoints.files import LocalFiles
from spark_jobs.session import build_session
from spark_jobs.settings import StreamSettings
from spark_jobs.sinks.delta import TableBatch, TableTarget, append, create_table, position
from tests.own_broker import OwnBroker
from tickhouse import table_checksums
from tickhouse.contract.tables import arrow_schema
from tickhouse.kafka import range_reader
from tickhouse.kafka.range_reader import OffsetRange

_TABLE = "higher"
_TOPIC, _TOPIC_ID = "flips", "id"
_DAY = datetime.datetime(2026, 1, 1, 23, 59, tzinfo=datetime.UTC)
_RECORDED = PROJECT_ROOT / "tests" / "data" / "home-spark-4.1.tar.xz"
_BATCHES, _MESSAGES = 8, 40

Reader = Callable[[], Any]


class Kind(NamedTuple):
    """Files that are flipped, and what reads them; what a reader raises is a refusal."""

    files: list[Path]
    readers: list[Reader]
    places: Callable[[bytes], Sequence[int]] = lambda content: range(len(content))
    """Which bytes of a file are flipped."""


def count(kind: Kind, flips: int, random: Random, told: Callable[[str], None] = lambda _: None) -> Counter[str]:
    """Flip bits, one at a time; how many were `refused`, `harmless` and `wrong`. `told`: what was wrong."""
    outcomes: Counter[str] = Counter(refused=0, harmless=0, wrong=0)
    truths = [reader() for reader in kind.readers]
    files = [path for path in kind.files if path.stat().st_size]
    for _ in range(flips):
        path, number = random.choice(files), random.randrange(len(truths))
        content = path.read_bytes()
        at, bit = random.choice(kind.places(content)), random.randrange(8)
        with flipped(path, at, bit):
            outcome = _outcome(kind.readers[number], truths[number])
        outcomes[outcome] += 1
        if outcome == "wrong":
            told(f"{path.name}: bit {bit} of byte {at}")
    if [reader() for reader in kind.readers] != truths:
        raise RuntimeError("the files are not read as before, with every bit in its place")
    return outcomes


def _outcome(reader: Reader, truth: Any) -> str:
    try:
        return "harmless" if reader() == truth else "wrong"
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:
        # A panic of the query engine is no Exception. Without checksums it may even end the process.
        return "refused"


@contextmanager
def flipped(path: Path, at: int, bit: int) -> Iterator[None]:
    """In place, as a disk does it; only that the time of the change tells of it."""
    with path.open("r+b") as file:
        file.seek(at)
        (old,) = file.read(1)
        try:
            file.seek(at)
            file.write(bytes([old ^ 1 << bit]))
            file.flush()
            yield
        finally:
            file.seek(at)
            file.write(bytes([old]))


def make_table(folder: Path) -> TableTarget:
    """A table as a stream writes it: micro-batches about midnight, and a checkpoint of the log in between."""
    target = TableTarget(_TABLE, str(folder / "lakehouse" / _TABLE), folder)
    create_table(target)
    random = Random(7)
    for batch in range(_BATCHES):
        times = [_DAY + datetime.timedelta(milliseconds=1_900 * (30 * batch + row)) for row in range(30)]
        rows = [
            {"symbol": random.choice(["BTCUSDT", "ETHUSDT"]), "timestamp": time, "date": time.date()}
            | {"higher_window": random.choice([None, random.randrange(10**6) / 1_000])}
            for time in times
        ]
        made = pa.RecordBatch.from_pylist(rows, schema=arrow_schema(_TABLE))
        wanted = OffsetRange(_TOPIC, {0: 30 * batch}, {0: 30 * (batch + 1)})
        append(target, TableBatch(wanted, _TOPIC_ID, "flips", batch), partial(_once, made, 30 * batch))
        if batch == _BATCHES // 2:
            table_checksums.open_table(target.uri).create_checkpoint()
            table_checksums.note(target.uri)
    return target


def _once(rows: pa.RecordBatch, begin: int, lacking: dict[int, int]) -> Iterator[pa.RecordBatch]:
    if lacking[0] <= begin:
        yield rows


def _table_readers(target: TableTarget) -> list[Reader]:
    lakehouse = Lakehouse(target.uri.rpartition("/")[0])
    columns = [field.name for field in arrow_schema(_TABLE)]
    newest = table_checksums.open_table(target.uri).version()

    def sorted_rows(batches: Iterator[pa.RecordBatch]) -> list[str]:
        return sorted(str(row) for batch in batches for row in batch.to_pylist())

    def asked() -> list[str]:
        return sorted(map(str, query(lakehouse.uri, f"SELECT * FROM {_TABLE} WHERE date >= '2026-01-02'").rows()))

    def whole() -> tuple[list[str], Any, Any]:
        state = lakehouse.version(_TABLE)
        rows = sorted_rows(lakehouse.snapshot(_TABLE, state.version if state else 0, columns))
        return rows, lakehouse.content(_TABLE), position(target.uri, _TOPIC, _TOPIC_ID, (0,))

    return [whole, asked, lambda: sorted_rows(lakehouse.added(_TABLE, 1, newest, columns))]


def data_kinds(folder: Path, *, checked: bool) -> dict[str, Kind]:
    """The files of a Delta table."""
    target = make_table(folder)
    table, readers = Path(target.uri), _table_readers(target)
    if not checked:
        shutil.rmtree(table / table_checksums.FOLDER)
    log = table / "_delta_log"
    kinds = {
        "Delta: data": Kind(sorted(table.glob("date=*/*.parquet")), readers),
        "Delta: log entries": Kind(sorted(log.glob("*.json")), readers),
        "Delta: log checkpoint": Kind(sorted(log.glob("*.checkpoint.parquet")), readers),
        "Delta: _last_checkpoint": Kind([log / "_last_checkpoint"], readers),
    }
    if checked:
        sums = sorted(path for path in (table / table_checksums.FOLDER).rglob("*") if path.is_file())
        kinds["Delta: our checksums"] = Kind(sums, readers)
    return kinds


def record_kinds(folder: Path, *, checked: bool) -> dict[str, Kind]:
    """What a stream notes of its checkpoint, and the marker of a home."""
    place = folder / "checkpoints" / "moving"
    identity = {"query": "moving", "version": 3, "lateness_ms": 10_000, "state_partitions": 0}
    made = Checkpoint(LocalFiles(place), "moving")
    made.claim(identity)
    made.note_begins({"btc-price": {0: 1_234}})
    made.note_marked()
    made.keep_existing('{"existing":{"btc-moving":{"BTCUSDT":[1746709560000]}}}')
    for batch in range(3):
        files = LocalFiles(place)
        files.write(f"offsets/{batch}", f'v1\n{{"batchWatermarkMs":0}}\n{{"btc-price":{{"0":{100 * batch}}}}}')
        files.write(f"commits/{batch}", 'v1\n{"nextBatchWatermarkMs":0}')
    if not checked:
        for path in place.rglob(".*.crc"):
            path.unlink()

    def told() -> Any:
        again = Checkpoint(LocalFiles(place), "moving")
        noted = again.query_id, again.marked, again.begins, again.existing(), again.state_partitions
        return noted, again.inspect(), again.committed(), again.range_of(2)

    home = folder / "home"
    home.mkdir()
    mark_home(home)

    def is_ours() -> bool:
        require_removable(home)
        if read_marker(home, "home") is None:
            raise NotOurs
        return True

    names = ("tickhouse.json", "existing.json", "offsets/1", "offsets/2", "commits/2")
    return {
        "checkpoint: records": Kind([place / name for name in names], [told]),
        "home: marker": Kind([home / "tickhouse.json"], [is_ours]),
    }


@contextmanager
def state_kinds(folder: Path, tools: Path, *, checked: bool) -> Iterator[dict[str, Kind]]:
    """The state in a checkpoint of a real stream, read by Spark."""
    with tarfile.open(_RECORDED) as packed:
        packed.extractall(folder, filter="data")
    place = folder / "home" / "checkpoints" / "trend"
    Checkpoint(LocalFiles(place), "trend").claim({"query": "trend", "version": 3, **_identity(place)})
    os.environ |= {"JAVA_HOME": str(find_java(os.environ).path), "TICKHOUSE_HOME": str(folder / "home")}
    os.environ |= {"TICKHOUSE_JARS": str(spark_jars(tools))}
    spark = build_session("flips", StreamSettings())
    if not checked:
        for path in (place / "state").rglob("*.crc"):
            path.unlink()

    # Which stores there are is known to it, and it begins with the first query.
    spark._jsparkSession.sessionState().streamingQueryManager().stateStoreCoordinator()
    spark.sparkContext.setLogLevel("OFF")

    def state() -> list[str]:
        found = spark.read.format("statestore").option("stateVarName", "small").load(str(place)).collect()
        return sorted(map(str, found))

    files = {
        "snapshot": sorted(place.glob("state/0/0/1.zip")) + sorted(place.glob("state/0/0/SSTs/*.sst")),
        "changes": sorted(place.glob("state/0/0/2.changelog")),
        "metadata": [path for path in place.glob("state/0/_*/**/*") if path.is_file() and path.suffix != ".crc"],
    }
    try:
        yield {f"state: {name}": Kind(found, [state]) for name, found in files.items() if found}
    finally:
        spark.stop()


def _identity(place: Path) -> dict[str, Any]:
    noted = Checkpoint(LocalFiles(place), "trend")._noted() or {}
    return {name: noted[name] for name in ("lateness_ms", "state_partitions")}


@contextmanager
def broker_kinds(folder: Path, tools: Path, *, checked: bool) -> Iterator[dict[str, Kind]]:
    """Segments of a running broker, whose messages are read as the streams read them."""
    home = folder / "broker"
    home.mkdir()
    broker = OwnBroker(home, find_java(os.environ), tools)
    patch = pytest.MonkeyPatch()
    patch.setattr(range_reader, "_SILENCE_SECONDS", 2.0)
    if not checked:
        patch.setattr(range_reader, "Consumer", _unchecked)
    try:
        broker.start()
        create_topics(broker.bootstrap, (_TOPIC,), partitions=1)
        producer = Producer({"bootstrap.servers": broker.bootstrap, "enable.idempotence": True, "log_level": 0})
        for batch in range(_BATCHES):
            for number in range(_MESSAGES):
                producer.produce(_TOPIC, key=f"{batch}", value=f'{{"price":{batch * 1_000 + number}.25}}', partition=0)
            producer.flush(30)
        client = {"bootstrap.servers": broker.bootstrap, "log_level": "0"}
        wanted = OffsetRange(_TOPIC, {0: 0}, {0: _BATCHES * _MESSAGES})

        def messages() -> list[Any]:
            found = range_reader.read(wanted, client)
            return [(each.offset(), each.key(), each.value(), each.timestamp()) for some in found for each in some]

        segments = sorted((home / "kafka").rglob(f"{_TOPIC}-0/*.log"))
        indexes = [*(home / "kafka").rglob(f"{_TOPIC}-0/*.index"), *(home / "kafka").rglob(f"{_TOPIC}-0/*.timeindex")]
        yield {
            "Kafka: segments": Kind(segments, [messages], _behind_first_offsets),
            "Kafka: indexes": Kind(indexes, [messages]),
        }
    finally:
        patch.undo()
        broker.stop()


def _behind_first_offsets(segment: bytes) -> list[int]:
    """All of a segment but the first offset of each batch: brokers write it after the CRC has been made."""
    places: list[int] = []
    at = 0
    while at < len(segment):
        end = at + 12 + int.from_bytes(segment[at + 8 : at + 12])
        places += range(at + 8, end)
        at = end
    return places


def _unchecked(configuration: dict[str, Any]) -> Consumer:
    return Consumer({**configuration, "check.crcs": "false"})


def main() -> int:
    """Run it; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.bit_flips", description=__doc__)
    parser.add_argument("--flips", type=int, default=100, help="of each kind; a tenth of it in what Spark reads")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--break", dest="broken", choices=("checks",), help="take the checksums away")
    parser.add_argument("--only", default="", help="kinds that begin so")
    parser.add_argument("--tools", type=Path, default=PROJECT_ROOT / ".tools")
    options = parser.parse_args()
    checked, wrong = options.broken is None, 0
    print(f"{'kind':28}{'flips':>8}{'refused':>9}{'harmless':>10}{'wrong':>7}", flush=True)
    parts: list[tuple[tuple[str, ...], Callable[[Path], Any], int]] = [
        (("Delta",), partial(data_kinds, checked=checked), options.flips),
        (("checkpoint", "home"), partial(record_kinds, checked=checked), options.flips),
        (("Kafka",), partial(broker_kinds, tools=options.tools, checked=checked), options.flips),
        (("state",), partial(state_kinds, tools=options.tools, checked=checked), max(1, options.flips // 10)),
    ]
    for number, (begins, make, flips) in enumerate(parts):
        if not any(name.startswith(options.only[: len(name)]) for name in begins):
            continue
        with tempfile.TemporaryDirectory(prefix="tickhouse-flips-") as folder:
            made = make(Path(folder))
            for name, kind in _entered(made):
                if not name.startswith(options.only):
                    continue
                found = count(kind, flips, Random(f"{options.seed} {number} {name}"), lambda said: print(f"  {said}"))
                print(f"{name:28}{flips:8}{found['refused']:9}{found['harmless']:10}{found['wrong']:7}", flush=True)
                wrong += found["wrong"]
    return 1 if wrong else 0


def _entered(made: Any) -> Iterator[tuple[str, Kind]]:
    if isinstance(made, dict):
        yield from made.items()
        return
    with made as kinds:
        yield from kinds.items()


if __name__ == "__main__":
    sys.exit(main())
