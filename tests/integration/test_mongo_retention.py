"""Retention of documents, against the real server: what goes, what stays gone, and loads that run meanwhile."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from pymongo import MongoClient

from orchestration.lakehouse.tables import Lakehouse
from orchestration.monitoring.table_check_queries import compare
from orchestration.serving import mongo
from orchestration.serving.cutoffs import Cutoff
from orchestration.serving.load import load
from orchestration.serving.mongo import COLLECTIONS, DATABASE, RECORDS_DATABASE, Document, LoadError, MongoStore
from orchestration.serving.retention import CollectionReport, retain
from tests.zscore_tables import append, rows

pytestmark = pytest.mark.integration

SOME = ("30s", "1h")
"""Windows whose collections are loaded."""
DAY = 864_000
"""A day in ticks, which begin on the afternoon of 2025-05-08."""
OLD = [DAY * day + tick for day in range(4) for tick in range(3)]
NEW = range(DAY * 4, DAY * 4 + 3)
LONG_AGO = [-400 * DAY + tick for tick in OLD]
LAST_TWO = [*OLD[6:], *NEW]
"""What is kept of them for two days before the newest."""


@pytest.fixture
def client(mongo_uri: str) -> Iterator[MongoClient[Document]]:
    with MongoClient[Document](mongo_uri, tz_aware=True) as opened:
        for database in (DATABASE, RECORDS_DATABASE):
            opened.drop_database(database)
        yield opened


@pytest.fixture
def store(mongo_uri: str, client: MongoClient[Document]) -> Iterator[MongoStore]:
    opened = MongoStore(mongo_uri)
    yield opened
    opened.close()


@pytest.fixture
def lakehouse(tmp_path: Path, store: MongoStore) -> Lakehouse:
    """A table of two symbols, one of them of a year ago, which is loaded."""
    append(tmp_path, rows([*OLD, *NEW]))
    append(tmp_path, rows(LONG_AGO, "OLDUSDT"))
    tables = Lakehouse(str(tmp_path))
    load(tables, store, SOME)
    return tables


def ticks_of(table: pa.Table) -> set[tuple[str, datetime.datetime]]:
    return set(zip(table["symbol"].to_pylist(), table["timestamp"].to_pylist(), strict=True))


def assert_holds(client: MongoClient[Document], ticks: Sequence[int], old: Sequence[int] = LONG_AGO[3:]) -> None:
    expected = ticks_of(rows(ticks)) | ticks_of(rows(old, "OLDUSDT"))
    for window in SOME:
        found = {(each["symbol"], each["timestamp"]) for each in client[DATABASE][COLLECTIONS[window]].find()}
        assert found == expected


def assert_equal(lakehouse: Lakehouse, store: MongoStore) -> None:
    for outcome in compare(lakehouse, store, SOME).values():
        assert outcome.passed and outcome.description.startswith("equal; kept BTCUSDT from"), outcome


def cut(lakehouse: Lakehouse, store: MongoStore, days: int = 2) -> list[CollectionReport]:
    return list(retain(lakehouse, store, days))


def test_what_is_older_than_a_symbols_own_last_days_goes(
    lakehouse: Lakehouse, store: MongoStore, client: MongoClient[Document], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mongo, "CUT_OFF_AT_ONCE", 2)
    planned = list(retain(lakehouse, store, 2, dry_run=True))
    assert {each.removed for each in planned} == {9}
    assert_holds(client, [*OLD, *NEW], LONG_AGO)
    done = cut(lakehouse, store)
    assert [(each.collection, each.removed) for each in done] == [
        (name, 9) for name in (COLLECTIONS[window] for window in SOME)
    ]
    assert done[0].text() == (
        "btc-price-zscore-30s: 9 documents removed; kept BTCUSDT from 2025-05-10, OLDUSDT from 2024-04-04"
    )
    assert_holds(client, LAST_TWO)
    assert_equal(lakehouse, store)
    assert {record.documents for record in store.loaded().values()} == {len(LAST_TWO) + 9}
    assert {each.removed for each in cut(lakehouse, store)} == {0}


def drop_log(lakehouse: Lakehouse) -> None:
    """Changes cannot be told any more, so that all of the table is loaded."""
    append(Path(lakehouse.uri), rows([]))
    append(Path(lakehouse.uri), rows([]))
    DeltaTable(lakehouse.table_uri("zscores")).create_checkpoint()
    Path(lakehouse.table_uri("zscores"), "_delta_log", f"{2:020d}.json").unlink()


def replace_old_day(lakehouse: Lakehouse) -> None:
    """As a backfill does: a tick of that day is gone, and another is added."""
    table = rows([*OLD[1:3], 99])
    write_deltalake(lakehouse.table_uri("zscores"), table, mode="overwrite", predicate="date = '2025-05-08'")


def append_old(lakehouse: Lakehouse) -> None:
    append(Path(lakehouse.uri), rows(range(50, 60)))


@pytest.mark.parametrize("change", [drop_log, replace_old_day, append_old])
def test_no_load_brings_back_what_was_cut_off(
    lakehouse: Lakehouse, store: MongoStore, client: MongoClient[Document], change: Callable[[Lakehouse], None]
) -> None:
    cut(lakehouse, store)
    change(lakehouse)
    append(Path(lakehouse.uri), rows(range(NEW[-1] + 1, NEW[-1] + 5)))
    load(lakehouse, store, SOME)
    assert_holds(client, [*LAST_TWO, *range(NEW[-1] + 1, NEW[-1] + 5)])
    assert_equal(lakehouse, store)
    assert {record.documents for record in store.loaded().values()} == {len(LAST_TWO) + 4 + 9}


def test_a_longer_retention_brings_nothing_back_before_the_collection_is_loaded_anew(
    lakehouse: Lakehouse, store: MongoStore, client: MongoClient[Document]
) -> None:
    cut(lakehouse, store)
    assert {each.removed for each in cut(lakehouse, store, 3)} == {0}
    assert_holds(client, LAST_TWO)
    assert_equal(lakehouse, store)
    for window in SOME:
        store.forget(window)
    load(lakehouse, store, SOME)
    assert_holds(client, [*OLD, *NEW], LONG_AGO)
    cut(lakehouse, store, 3)
    assert_holds(client, [*OLD[3:], *NEW], LONG_AGO)
    assert_equal(lakehouse, store)


class Meanwhile(MongoStore):
    """A store in which something happens once, before the first record of a load."""

    def __init__(self, store: MongoStore, what: Callable[[], object]) -> None:
        self.__dict__.update(store.__dict__)
        self._what: Callable[[], object] | None = what

    def record(self, window: str, loaded: mongo.Loaded, found: mongo.Loaded | None = None) -> mongo.Loaded | None:
        what, self._what = self._what, None
        if what is not None:
            what()
        return super().record(window, loaded, found)


def test_what_a_load_writes_while_it_is_cut_off_goes_too(
    lakehouse: Lakehouse, store: MongoStore, client: MongoClient[Document]
) -> None:
    append_old(lakehouse)
    written = []

    def cut_meanwhile() -> None:
        """The cuts are there before the load knows, and so are documents before them."""
        for window, record in [(window, store.loaded()[COLLECTIONS[window]]) for window in SOME]:
            assert store.move_cuts(
                window, record, (Cutoff("BTCUSDT", datetime.datetime(2025, 5, 10, tzinfo=datetime.UTC)),)
            )
            written.append(client[DATABASE][COLLECTIONS[window]].count_documents({"symbol": "BTCUSDT"}))

    load(lakehouse, Meanwhile(store, cut_meanwhile), SOME)
    assert written == [len(OLD) + len(NEW) + 10] * len(SOME)
    assert_holds(client, LAST_TWO, LONG_AGO)
    assert_equal(lakehouse, store)


def test_a_load_does_not_undo_that_a_collection_is_loaded_anew(
    lakehouse: Lakehouse, store: MongoStore, client: MongoClient[Document]
) -> None:
    cut(lakehouse, store)
    append(Path(lakehouse.uri), rows(range(NEW[-1] + 1, NEW[-1] + 5)))
    with pytest.raises(LoadError, match="btc-price-zscore-30s is being loaded anew meanwhile"):
        load(lakehouse, Meanwhile(store, lambda: store.forget("30s")), SOME)
    load(lakehouse, store, SOME)
    assert store.loaded()[COLLECTIONS["30s"]].kept == ()
    assert client[DATABASE][COLLECTIONS["30s"]].count_documents({}) == len([*OLD, *NEW, *LONG_AGO]) + 4
    assert all(outcome.passed for outcome in compare(lakehouse, store, SOME).values())


def test_a_cut_while_the_collection_is_loaded_anew_waits(lakehouse: Lakehouse, store: MongoStore) -> None:
    class Forgotten(MongoStore):
        def __init__(self) -> None:
            self.__dict__.update(store.__dict__)

        def symbols(self, window: str) -> set[str]:
            self.forget(window)
            return super().symbols(window)

    assert {each.text().partition(";")[2] for each in cut(lakehouse, Forgotten())} == {
        " kept as it is; it is being loaded anew, and the next run removes what is due"
    }


def test_the_check_sees_what_is_missing_or_too_much_after_the_cut(
    lakehouse: Lakehouse, store: MongoStore, client: MongoClient[Document]
) -> None:
    cut(lakehouse, store)
    data = client[DATABASE]
    data[COLLECTIONS["30s"]].delete_one({"symbol": "BTCUSDT"})
    data[COLLECTIONS["1h"]].insert_one({"_id": "more"})
    found = compare(lakehouse, store, SOME)
    assert {window for window, outcome in found.items() if not outcome.passed} == {"30s", "1h"}
    assert found["30s"].description.startswith(f"{len(LAST_TWO) + 8} documents for {len(LAST_TWO) + 9} rows")
    assert found["1h"].description.startswith(f"{len(LAST_TWO) + 10} documents for {len(LAST_TWO) + 9} rows")


def test_another_table_is_not_cut_by_what_was_recorded_of_the_last(
    lakehouse: Lakehouse, store: MongoStore, client: MongoClient[Document], tmp_path: Path
) -> None:
    cut(lakehouse, store)
    elsewhere = Lakehouse(str(tmp_path / "elsewhere"))
    append(tmp_path / "elsewhere", rows(OLD[:2]))
    assert cut(elsewhere, store) == []
    load(elsewhere, store, SOME)
    assert_holds(client, [*OLD[:2], *LAST_TWO])
    assert {record.kept for record in store.loaded().values()} == {()}
