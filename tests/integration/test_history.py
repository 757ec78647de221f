"""Reconcile and backfill on tables written without Spark, by the streams' own operators."""

from __future__ import annotations

import datetime
import pickle
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from pymongo import MongoClient

from orchestration.lakehouse import backfill_log
from orchestration.lakehouse.maintenance import Maintenance, Policy
from orchestration.lakehouse.snapshot import TableSnapshot
from orchestration.lakehouse.tables import Lakehouse
from orchestration.recompute.backfill import BackfillError, TableBackfill, backfill
from orchestration.recompute.expected_rows import RESULT_TABLES, complete_until
from orchestration.recompute.reconcile import Findings, NothingToCompare, reconcile
from orchestration.serving.load import load
from orchestration.serving.mongo import DATABASE, RECORDS_DATABASE, Document, MongoStore
from orchestration.settings import PROJECT_ROOT
from tests.history_tables import LATENESS_MS, History, Tick
from tickhouse.contract.names import PRICE_SCALE

pytestmark = pytest.mark.integration

DAY = datetime.date(2025, 5, 8)
MIDNIGHT = 1_746_748_800_000  # 2025-05-09T00:00:00Z
SYMBOLS = ("BTCUSDT", "ETHUSDT")


def walk(start: int, count: int, seed: int, symbols: tuple[str, ...] = SYMBOLS, step: int = 6_000) -> list[Tick]:
    """Ticks of symbols, a good part of them out of order, some repeated."""
    random = Random(seed)
    ticks = []
    for position in range(count):
        for number, symbol in enumerate(symbols):
            time = start + step * position - random.choice([0, 0, 0, 3_000, 9_900])
            ticks.append((symbol, time, (60_000 + 1_000 * number + random.randint(-5, 5)) * PRICE_SCALE // 7))
    return ticks


@pytest.fixture
def history(tmp_path: Path) -> History:
    """Two hours around midnight, all that was published archived."""
    made = History(tmp_path / "lakehouse")
    made.send(walk(MIDNIGHT - 4_000_000, 1_200, 1))
    made.archive()
    return made


def look(history: History, **given: Any) -> dict[str, Findings]:
    return {found.table: found for found in reconcile(str(history.lakehouse), LATENESS_MS, **given)}


def whole(history: History) -> dict[str, Findings]:
    """Compare all that there is."""
    return look(history, minutes=300, until=datetime.datetime(2025, 5, 9, 2, tzinfo=datetime.UTC))


def repair(history: History, day: datetime.date = DAY) -> dict[str, TableBackfill]:
    done = backfill(Lakehouse(str(history.lakehouse)), history.lakehouse / "home", day, LATENESS_MS)
    return {each.table: each for each in done}


def all_rows(history: History, table: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = DeltaTable(str(history.lakehouse / table)).to_pyarrow_table().to_pylist()
    return sorted(rows, key=lambda row: (row["symbol"], row["timestamp"]))


def rewrite(history: History, table: str, symbol: str, at: int, change: Callable[[dict[str, Any]], Any]) -> None:
    """Put in the place of the row of a tick what `change` returns, None for no row."""
    opened = DeltaTable(str(history.lakehouse / table))
    day = datetime.datetime.fromtimestamp(at / 1_000, datetime.UTC).date()
    rows = opened.to_pyarrow_table()
    kept = []
    for row in rows.to_pylist():
        concerned = row["symbol"] == symbol and round(row["timestamp"].timestamp() * 1_000) == at
        changed = change(row) if concerned else row
        if row["date"] == day and changed is not None:
            kept.append(changed)
    write_deltalake(opened, pa.Table.from_pylist(kept, rows.schema), mode="overwrite", predicate=f"date = '{day}'")


def alter(history: History, table: str, symbol: str, at: int) -> None:
    """Change one stored value, mostly by the smallest amount there is."""

    def change(row: dict[str, Any]) -> dict[str, Any]:
        if table == "moving_stats":
            row["stats"][2]["std_price"] = float(np.nextafter(row["stats"][2]["std_price"], 1e9))
        elif table == "zscores":
            row["z_scores"][0]["zscore_price"] = None
        else:
            row[f"{table}_window"] = float(np.nextafter(row[f"{table}_window"], 0))
        return row

    rewrite(history, table, symbol, at, change)


def late_tick(history: History, at: int = MIDNIGHT - 1_500_001) -> None:
    """A tick that comes far too late, and all tables catch up with the prices."""
    history.send([("BTCUSDT", at, 99_999 * PRICE_SCALE)])
    history.archive()


def times(history: History, table: str, symbol: str = "BTCUSDT") -> list[int]:
    found = [row["timestamp"] for row in all_rows(history, table) if row["symbol"] == symbol]
    return [round(moment.timestamp() * 1_000) for moment in found]


def test_what_the_streams_have_stored_is_what_follows_from_the_prices(history: History) -> None:
    found = look(history)
    assert {table: findings.passed for table, findings in found.items()} == dict.fromkeys(RESULT_TABLES, True)
    for findings in found.values():
        assert findings.compared > 250 and not findings.notes and set(findings.until) == set(SYMBOLS)
        assert "equal to the last bit" in findings.text()
    everything = whole(history)
    assert all(findings.passed for findings in everything.values())
    assert everything["moving_stats"].compared > 2_000


def test_one_value_that_is_off_by_the_last_bit_is_named_and_repaired(history: History) -> None:
    at = times(history, "moving_stats")[500]
    before = {table: all_rows(history, table) for table in RESULT_TABLES}
    for table in RESULT_TABLES:
        alter(history, table, "BTCUSDT", at)
    for table, findings in whole(history).items():
        assert not findings.passed and findings.counts == dict.fromkeys(findings.counts, 0) | {"differing": 1}
        (example,) = findings.examples
        assert example.startswith("differing: BTCUSDT at 2025-05-08T23:") and "must be" in example
        assert ("std_price of 5m" in example) == (table == "moving_stats")
    done = repair(history)
    assert {(each.changed, each.added, each.removed) for each in done.values()} == {(1, 0, 0)}
    assert all("1 changed" in each.text() for each in done.values())
    assert all(findings.passed for findings in whole(history).values())
    assert {table: all_rows(history, table) for table in RESULT_TABLES} == before
    again = repair(history)
    assert not any(each.replaced for each in again.values())
    assert {each.version for each in again.values()} == {3}


@pytest.mark.parametrize("kind", ["missing", "unexpected", "duplicate"])
def test_rows_too_few_and_too_many_are_named_and_repaired(history: History, kind: str) -> None:
    at = times(history, "higher")[600]
    table = DeltaTable(str(history.lakehouse / "higher"))
    before = all_rows(history, "higher")
    if kind == "missing":
        rewrite(history, "higher", "BTCUSDT", at, lambda _: None)
    else:
        row = next(row for row in before if row["symbol"] == "BTCUSDT" and row["timestamp"].timestamp() * 1_000 == at)
        if kind == "unexpected":
            row = row | {"timestamp": row["timestamp"] + datetime.timedelta(milliseconds=1)}
        write_deltalake(table, pa.Table.from_pylist([row], table.to_pyarrow_table().schema), mode="append")
    findings = whole(history)["higher"]
    assert findings.counts == dict.fromkeys(findings.counts, 0) | {kind: 1}
    assert findings.examples[0].startswith(f"{kind}: BTCUSDT at 2025-05-08")
    done = repair(history)["higher"]
    assert (done.added, done.removed) == ((1, 0) if kind == "missing" else (0, 1))
    assert all(found.passed for found in whole(history).values())
    assert all_rows(history, "higher") == before


def test_late_ticks_are_included_by_a_backfill_and_stay_right_while_more_arrive(history: History) -> None:
    late_tick(history)
    assert all(found.passed for found in whole(history).values())
    done = repair(history)
    assert {each.added for each in done.values()} == {1}
    assert done["moving_stats"].changed > 200
    assert MIDNIGHT - 1_500_001 in times(history, "zscores")
    found = whole(history)
    assert all(findings.passed for findings in found.values()), [each.text() for each in found.values()]
    assert (
        found["moving_stats"].backfilled > 1_000 and found["moving_stats"].compared > found["moving_stats"].backfilled
    )

    # The streams go on, and more comes late: the rows are still judged by what the backfill had.
    history.send(walk(MIDNIGHT + 3_200_000, 70, 2))
    late_tick(history, MIDNIGHT - 1_200_001)
    assert all(findings.passed for findings in whole(history).values())
    assert {each.added for each in repair(history).values()} == {1}
    found = whole(history)
    assert all(findings.passed for findings in found.values()), [each.text() for each in found.values()]
    # The next day's first hour has the late ticks of the day before in its windows.
    following = repair(history, DAY + datetime.timedelta(days=1))
    assert following["moving_stats"].changed > 200 and following["higher"].changed == 0
    assert all(findings.passed for findings in whole(history).values())


@pytest.mark.parametrize("seed", range(4))
def test_whatever_lags_nothing_is_lost_or_doubled(tmp_path: Path, seed: int) -> None:
    random = Random(seed)
    history = History(tmp_path / "lakehouse", [random.randint(1, 120) for _ in range(5)])
    history.send(walk(MIDNIGHT - 3_000_000, 400, seed))
    history.archive(**{table: random.randint(0, 200) for table in ("prices", *RESULT_TABLES)})
    assert all(found.passed for found in look(history, minutes=30).values())
    repair(history)
    assert all(found.passed for found in look(history, minutes=30).values())
    history.send([("ETHUSDT", MIDNIGHT - 2_500_001, 7 * PRICE_SCALE)])
    history.send(walk(MIDNIGHT - 600_000, 60, seed + 100))
    for _ in range(3):
        history.archive(**{table: random.randint(0, 100) for table in ("prices", *RESULT_TABLES)})
        repair(history)
        found = look(history, minutes=60)
        assert all(findings.passed for findings in found.values()), [each.text() for each in found.values()]
    history.archive()
    repair(history)
    found = look(history, minutes=60)
    assert all(findings.passed for findings in found.values()), [each.text() for each in found.values()]
    identities = {(symbol, time) for symbol, time, _ in history.ticks}
    for table in RESULT_TABLES:
        rows = Counter((row["symbol"], round(row["timestamp"].timestamp() * 1_000)) for row in all_rows(history, table))
        assert set(rows.values()) == {1}
        for symbol in SYMBOLS:
            newest = max(time for each, time, _ in history.ticks if each == symbol)
            until = complete_until(table, newest, times(history, table, symbol)[-1], LATENESS_MS)
            stored = {time for each, time in rows if each == symbol and time <= until}
            assert stored == {time for each, time in identities if each == symbol and time <= until}


def test_a_symbol_that_is_not_complete_is_left_alone(history: History) -> None:
    history.send([("NEWUSDT", MIDNIGHT - 5_000, PRICE_SCALE)])
    history.archive()
    before = {table: all_rows(history, table) for table in RESULT_TABLES}
    late_tick(history)
    done = repair(history)
    assert all("NEWUSDT" in each.text() for each in done.values())
    assert all("no row of NEWUSDT yet" in found.text() for found in whole(history).values())
    assert len(all_rows(history, "lower")) == len(before["lower"]) + 1


def test_a_table_keeps_what_it_is_through_a_backfill(history: History) -> None:
    late_tick(history)
    uri = str(history.lakehouse / "zscores")
    before = DeltaTable(uri)
    repair(history)
    after = DeltaTable(uri)
    assert after.version() == before.version() + 1
    assert (after.schema(), after.metadata().configuration, after.protocol()) == (
        before.schema(),
        before.metadata().configuration,
        before.protocol(),
    )
    assert sorted(DeltaTable(str(history.lakehouse / "backfills")).to_pyarrow_table()["table"].to_pylist()) == sorted(
        [*RESULT_TABLES] * 2
    )
    # Maintenance, and readers of the changes, go on as before.
    report = Maintenance(
        Lakehouse(str(history.lakehouse)), history.lakehouse / "home", Policy(min_small_files=2)
    ).maintain("zscores")
    assert report is not None
    assert all(findings.passed for findings in whole(history).values())


def test_mongodb_is_brought_in_line(history: History, mongo_uri: str) -> None:
    with MongoClient[Document](mongo_uri) as client:
        for database in (DATABASE, RECORDS_DATABASE):
            client.drop_database(database)
        store = MongoStore(mongo_uri)
        lakehouse = Lakehouse(str(history.lakehouse))
        load(lakehouse, store)
        stray = {"symbol": "BTCUSDT", "timestamp": datetime.datetime(2025, 5, 8, 23, 30, 0, 1_000, datetime.UTC)}
        table = DeltaTable(str(history.lakehouse / "zscores"))
        row = all_rows(history, "zscores")[0] | stray
        write_deltalake(table, pa.Table.from_pylist([row], table.to_pyarrow_table().schema), mode="append")
        late_tick(history)
        load(lakehouse, store)
        repair(history)
        load(lakehouse, store)
        for position, window in ((0, "30s"), (5, "1h")):
            scores = {
                (row["symbol"], round(row["timestamp"].timestamp() * 1_000)): row["z_scores"][position]["zscore_price"]
                for row in all_rows(history, "zscores")
            }
            found = client[DATABASE][f"btc-price-zscore-{window}"].find()
            assert {
                (each["symbol"], round(each["timestamp"].replace(tzinfo=datetime.UTC).timestamp() * 1_000)): each[
                    "zscore_price"
                ]
                for each in found
            } == scores
        store.close()


def test_appends_meanwhile_are_not_lost(history: History) -> None:
    """Streams append under the same lock, in another process, while days are replaced."""
    history.send(walk(MIDNIGHT + 3_200_000, 100, 5))
    expected = len(history.published()["higher"])
    program = (
        "import pickle, sys\nfrom pathlib import Path\nfrom deltalake import write_deltalake\n"
        "from spark_jobs.sinks.table_lock import table_lock\nfrom tests.operators_without_spark import table_rows\n"
        "uri, home, messages = pickle.load(sys.stdin.buffer)\n"
        "for start in range(0, len(messages), 20):\n"
        "    with table_lock(Path(home), 'higher', 60):\n"
        "        write_deltalake(uri, table_rows('higher', messages[start:start + 20]), mode='append')\n"
    )
    messages = [message for message in history.published()["higher"] if message not in history.copied]
    given = pickle.dumps((str(history.lakehouse / "higher"), str(history.lakehouse / "home"), messages))
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, cwd=PROJECT_ROOT) as appender:
        stdin = appender.stdin
        assert stdin is not None
        threading.Thread(target=lambda: (stdin.write(given), stdin.close())).start()
        day = DAY + datetime.timedelta(days=1)
        rounds = 0
        while appender.poll() is None or rounds == 0:
            alter(history, "lower", "BTCUSDT", times(history, "lower")[100])
            repair(history, DAY if rounds % 2 else day)
            rounds += 1
    assert appender.returncode == 0
    assert len(all_rows(history, "higher")) == expected


def test_killed_between_the_tables_a_repetition_repairs(history: History) -> None:
    late_tick(history)
    home = history.lakehouse / "home"
    program = (
        "import datetime, os, signal, sys\nfrom pathlib import Path\n"
        "from orchestration.recompute import backfill\nfrom orchestration.lakehouse.tables import Lakehouse\n"
        "lakehouse, home, victim = sys.argv[1:]\n"
        "if victim == 'recorded':\n"
        "    backfill.write_deltalake = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)\n"
        "for done in backfill.backfill(Lakehouse(lakehouse), Path(home), datetime.date(2025, 5, 8), 10_000):\n"
        "    if done.table == victim:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    for victim in ("recorded", "moving_stats", "higher"):
        killed = subprocess.run(
            [sys.executable, "-c", program, str(history.lakehouse), str(home), victim], cwd=PROJECT_ROOT, check=False
        )
        assert killed.returncode == -signal.SIGKILL
        found = whole(history)
        assert all(findings.passed for findings in found.values()), [each.text() for each in found.values()]
    assert len(all_rows(history, "lower")) + 1 == len(all_rows(history, "higher"))
    done = repair(history)
    assert [each.added for each in done.values()] == [0, 0, 0, 1]
    assert all(findings.passed for findings in whole(history).values())


def test_what_a_stream_wrote_before_its_topic_was_made_anew_comes_first(history: History) -> None:
    """Offsets begin again at 0: what was ingested before the gap was gone past is of another generation."""
    schema = [("query", "prices"), ("reason", "created again")]
    skipped_at = datetime.datetime(2025, 5, 9, 1, tzinfo=datetime.UTC)
    write_deltalake(
        str(history.lakehouse / "gaps"),
        pa.Table.from_pylist([dict(schema) | {"skipped_at": skipped_at, "topic": "btc-price", "partition": 0}]),
    )
    prices = DeltaTable(str(history.lakehouse / "prices")).to_pyarrow_table()
    position = prices.schema.get_field_index("offset")
    half = len(prices) // 2
    offsets = pa.array([*range(half), *range(len(prices) - half)], pa.int64())
    ingested = pa.array(
        [skipped_at - datetime.timedelta(hours=1)] * half
        + [skipped_at + datetime.timedelta(hours=1)] * (len(prices) - half),
        prices.schema.field("ingested_at").type,
    )
    order = np.argsort(prices["offset"].to_numpy())
    renumbered = prices.take(pa.array(order)).set_column(position, prices.schema.field("offset"), offsets)
    renumbered = renumbered.set_column(
        prices.schema.get_field_index("ingested_at"), prices.schema.field("ingested_at"), ingested
    )
    write_deltalake(str(history.lakehouse / "prices"), renumbered, mode="overwrite")
    assert all(findings.passed for findings in whole(history).values())
    middle = datetime.datetime.fromtimestamp(renumbered["timestamp"][half].as_py().timestamp() + 60, datetime.UTC)
    assert all(findings.passed for findings in look(history, minutes=30, until=middle).values())
    alter(history, "lower", "ETHUSDT", times(history, "lower", "ETHUSDT")[300])
    repair(history)
    (record,) = {
        each.reach.generation
        for each in backfill_log.valid(str(history.lakehouse), TableSnapshot(str(history.lakehouse), "lower")).values()
    }
    assert record == 1
    assert all(findings.passed for findings in whole(history).values())


def test_a_day_without_prices_is_said_to_be_one(history: History) -> None:
    done = repair(history, datetime.date(2020, 1, 1))
    assert set(done) == set(RESULT_TABLES)
    for each in done.values():
        assert not each.replaced
        assert "there are no prices of that day" in each.text()
    assert not any("there are no prices" in each.text() for each in repair(history).values())


def test_without_tables_the_reason_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(NothingToCompare, match="start the prices stream"):
        reconcile(str(tmp_path), LATENESS_MS)
    with pytest.raises(BackfillError, match="start the prices stream"):
        next(backfill(Lakehouse(str(tmp_path)), tmp_path, DAY, LATENESS_MS))
    assert not list(tmp_path.iterdir())
