"""What the board reads: real Delta tables, a real mongod, and both of them away."""

from __future__ import annotations

import datetime
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from pymongo import MongoClient

from orchestration.board.rows import ORDERS, TABLES, RecentRows
from orchestration.board.scores import Scores
from orchestration.board.watcher import Watcher
from orchestration.serving.mongo import DATABASE, RECORDS_DATABASE
from orchestration.settings import OrchestrationSettings
from tests.stored import Symbol, load_all
from tickhouse.contract.names import WINDOWS

pytestmark = pytest.mark.integration
MINUTE = 60_000
START = int(datetime.datetime(2026, 3, 1, 23, 58, tzinfo=datetime.UTC).timestamp() * 1_000)
"""Two minutes before a day ends: the tables have two partitions."""
NOWHERE = "127.0.0.1:1"


def stored(lakehouse: Path, table: str, symbol: str, since: int) -> tuple[list[int], list[Any]]:
    """The same by another way: all of the table, in memory."""
    rows = DeltaTable(str(lakehouse / table)).to_pyarrow_table().to_pylist()
    found = sorted(
        ((round(row["timestamp"].timestamp() * 1_000), row) for row in rows if row["symbol"] == symbol),
        key=lambda pair: pair[0],
    )
    return [at for at, _ in found if at >= since], [row for at, row in found if at >= since]


@pytest.mark.parametrize("table", TABLES)
def test_the_newest_stretch_is_read_and_then_only_what_is_new(tmp_path: Path, table: str) -> None:
    bitcoin, ether = Symbol(tmp_path, "BTCUSDT", START), Symbol(tmp_path, "ETHUSDT", START)
    recent = RecentRows(str(tmp_path / table), TABLES[table])
    assert recent.refresh() is None
    assert recent.read("BTCUSDT", 0).times.tolist() == []
    for _ in range(3):
        for symbol in (bitcoin, ether):
            symbol.advance(700)
        assert recent.refresh() is not None
        assert recent.end is not None
        since = recent.end - MINUTE
        rows = recent.read("BTCUSDT", since)
        times, expected = stored(tmp_path, table, "BTCUSDT", since)
        assert rows.times.tolist() == times
        if table == "prices":
            assert rows.values[0].tolist() == [float(row["price"]) for row in expected]
        elif table == "moving_stats":
            for position, name in enumerate(("avg_price", "std_price")):
                numbers = [[entry[name] for entry in row["stats"]] for row in expected]
                part = rows.values[position * len(WINDOWS) : (position + 1) * len(WINDOWS)]
                np.testing.assert_array_equal(part, np.array(numbers, dtype=float).T)
        else:
            assert rows.values[0].tolist() == [row[f"{table}_window"] for row in expected]


def test_rows_that_were_rewritten_are_read_again(tmp_path: Path) -> None:
    symbol = Symbol(tmp_path, "BTCUSDT", START)
    symbol.advance(300)
    symbol.advance(300)
    recent = RecentRows(str(tmp_path / "prices"), TABLES["prices"])
    recent.refresh()
    before = recent.read("BTCUSDT", START)
    table = DeltaTable(str(tmp_path / "prices"))
    middle = float(np.median(before.values[0]))
    table.update(updates={"price": "1"}, predicate=f"price >= {middle}")
    table.optimize.compact()
    recent.refresh()
    after = recent.read("BTCUSDT", START)
    assert after.times.tolist() == before.times.tolist()
    assert after.values[0].tolist() == [1.0 if price >= middle else price for price in before.values[0].tolist()]
    assert 1.0 in after.values[0]


def test_of_a_tick_that_came_twice_the_first_one_comes_first(tmp_path: Path) -> None:
    Symbol(tmp_path, "BTCUSDT", START).advance(300)
    uri = str(tmp_path / "prices")
    found = DeltaTable(uri).to_pyarrow_table().to_pylist()
    again = [row | {"price": row["price"] + 1, "offset": row["offset"] + 300} for row in found]
    write_deltalake(uri, pa.Table.from_pylist(again, DeltaTable(uri).to_pyarrow_table().schema), mode="append")
    recent = RecentRows(uri, TABLES["prices"], ORDERS["prices"])
    recent.refresh()
    rows = recent.read("BTCUSDT", START)
    assert rows.times[::2].tolist() == rows.times[1::2].tolist()
    assert (rows.values[0, 1::2] - rows.values[0, ::2] == 1).all()


@pytest.fixture
def empty_mongo(mongo_uri: str) -> Iterator[str]:
    client: MongoClient[dict[str, Any]] = MongoClient(mongo_uri)
    for database in (DATABASE, RECORDS_DATABASE):
        client.drop_database(database)
    yield mongo_uri
    client.close()


def test_scores_are_those_of_the_table(tmp_path: Path, empty_mongo: str) -> None:
    symbol = Symbol(tmp_path, "BTCUSDT", START)
    symbol.advance(900)
    load_all(tmp_path, empty_mongo)
    scores = Scores(empty_mongo)
    first = scores.loaded()
    assert scores.symbols() == ["BTCUSDT"]
    found = scores.read("BTCUSDT", MINUTE)
    times, expected = stored(tmp_path, "zscores", "BTCUSDT", START + 89_900 - MINUTE)
    for position, window in enumerate(WINDOWS):
        assert found[window].times.tolist() == times
        numbers = [row["z_scores"][position]["zscore_price"] for row in expected]
        np.testing.assert_array_equal(found[window].values[0], np.array(numbers, dtype=float))
    assert [len(rows.times) for rows in scores.read("NOBODY", MINUTE).values()] == [0] * len(WINDOWS)
    symbol.advance(1)
    load_all(tmp_path, empty_mongo)
    assert scores.loaded() != first
    scores.close()


@contextmanager
def watching(home: Path, mongo_uri: str) -> Iterator[Watcher]:
    settings = OrchestrationSettings(
        home=home, lakehouse=str(home / "lakehouse"), kafka_bootstrap=NOWHERE, mongo_uri=mongo_uri
    )
    with Watcher(lambda: settings) as watcher:
        yield watcher


def wait_for(watcher: Watcher, condition: Any, symbol: str = "BTCUSDT") -> Any:
    deadline = time.monotonic() + 30
    while not (found := condition(watcher.look(symbol, 5 * MINUTE))):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return found


def test_one_reader_follows_tables_and_collections(tmp_path: Path, empty_mongo: str) -> None:
    lakehouse = tmp_path / "lakehouse"
    with watching(tmp_path, empty_mongo) as watcher:
        assert watcher.symbols == ("BTCUSDT",)
        sight = wait_for(watcher, lambda sight: sight.status and sight)
        assert any("Kafka" in problem for problem in sight.problems)
        assert sight.markets["BTCUSDT", 5 * MINUTE].last_price is None
        bitcoin, ether = Symbol(lakehouse, "BTCUSDT", START), Symbol(lakehouse, "ETHUSDT", START)
        bitcoin.advance(500)
        ether.advance(10)
        load_all(lakehouse, empty_mongo)
        key = ("BTCUSDT", 5 * MINUTE)
        market = wait_for(
            watcher, lambda sight: (one := sight.markets.get(key)) and len(one.scores["30s"].times) == 500 and one
        )
        assert len(market.prices.times) == len(market.statistics.times) == 500
        assert wait_for(watcher, lambda sight: sight.symbols == ("BTCUSDT", "ETHUSDT"))
        assert watcher.look(*key).markets[key] is market, "nothing new: nothing is read"
        bitcoin.advance(5)
        wait_for(watcher, lambda sight: len(sight.markets[key].prices.times) == 505)
        other = ("ETHUSDT", 5 * MINUTE)
        wait_for(
            watcher, lambda sight: other in sight.markets and len(sight.markets[other].prices.times) == 10, "ETHUSDT"
        )
        # Its z-scores are not loaded yet: the numbers shown are of the tick before these five.
        shown = watcher.look(*key).markets[key]
        assert shown.last_price is not None and shown.last_price[0] == START + 504 * 100
        for window in WINDOWS:
            reading = shown.reading(window)
            assert reading is not None and reading.time == START + 499 * 100
            exact = (reading.price - reading.average) / reading.deviation
            assert reading.z_score == pytest.approx(exact, abs=1e-6)
        watcher.look("NOBODY", MINUTE)
        assert not any(symbol == "NOBODY" for symbol, _ in watcher.look(*key).markets)


def test_what_is_away_is_told_and_the_rest_is_shown(tmp_path: Path) -> None:
    Symbol(tmp_path / "lakehouse", "BTCUSDT", START).advance(50)
    log = tmp_path / "lakehouse" / "higher" / "_delta_log" / "00000000000000000000.json"
    log.write_text("nonsense\n")
    with watching(tmp_path, f"mongodb://anna:secret@{NOWHERE}/") as watcher:  # pragma: allowlist secret
        sight = wait_for(watcher, lambda sight: sight.markets and sight)
        assert len(sight.markets["BTCUSDT", 5 * MINUTE].prices.times) == 50
        told = " ".join(sight.problems)
        assert "MongoDB at mongodb://***@127.0.0.1:1/ does not answer" in told
        assert "the table higher" in told
        assert "secret" not in told
