"""Loading MongoDB, against the real server, from Delta tables written without Spark."""

from __future__ import annotations

import datetime
import re
import shutil
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable, write_deltalake
from pymongo import MongoClient
from pymongo.errors import ConfigurationError

from orchestration.lakehouse.tables import Lakehouse
from orchestration.serving.load import WindowLoad, load
from orchestration.serving.mongo import (
    COLLECTIONS,
    DATABASE,
    RECORDS_DATABASE,
    Document,
    Loaded,
    LoadError,
    MongoStore,
    fault,
)
from tests.zscore_tables import START_MS, append, rows, score
from tickhouse.contract.names import WINDOWS

pytestmark = pytest.mark.integration


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


def expected(ticks: Sequence[int], window: str, symbol: str = "BTCUSDT") -> dict[str, Document]:
    documents = {}
    for tick in ticks:
        time = datetime.datetime.fromtimestamp((START_MS + 100 * tick) / 1_000, datetime.UTC)
        identity = f"{symbol}|{time.strftime('%Y-%m-%dT%H:%M:%S')}.{time.microsecond // 1_000:03d}Z"
        documents[identity] = {
            "_id": identity,
            "timestamp": time,
            "symbol": symbol,
            "window": window,
            "zscore_price": score(tick, window),
        }
    return documents


def outcome(done: Sequence[WindowLoad]) -> set[tuple[int, int, int]]:
    """Rows loaded, documents and version, over all windows: one tuple when all are equal."""
    return {(each.rows, each.loaded.documents, each.loaded.delta_version) for each in done}


def assert_holds(client: MongoClient[Document], ticks: Sequence[int], windows: Sequence[str] = tuple(WINDOWS)) -> None:
    for window in windows:
        found = {document["_id"]: document for document in client[DATABASE][COLLECTIONS[window]].find()}
        assert found == expected(ticks, window)


def test_a_table_is_loaded_whole_and_then_by_what_is_new(
    tmp_path: Path, store: MongoStore, client: MongoClient[Document]
) -> None:
    append(tmp_path, rows(range(100)))
    append(tmp_path, rows(range(100, 2_500)))
    first = load(Lakehouse(str(tmp_path)), store)
    assert [(done.window, done.rows, done.loaded.documents) for done in first] == [(w, 2_500, 2_500) for w in WINDOWS]
    assert_holds(client, range(2_500))

    append(tmp_path, rows(range(2_500, 2_510)))
    second = load(Lakehouse(str(tmp_path)), store)
    assert outcome(second) == {(10, 2_510, 2)}
    assert second[0].last_event_time == datetime.datetime.fromtimestamp(START_MS / 1_000 + 250.9, datetime.UTC)
    assert_holds(client, range(2_510))

    assert {done.rows for done in load(Lakehouse(str(tmp_path)), store)} == {0}


def test_the_database_has_exactly_the_six_collections_with_their_index(
    tmp_path: Path, store: MongoStore, client: MongoClient[Document]
) -> None:
    append(tmp_path, rows([0]))
    load(Lakehouse(str(tmp_path)), store)
    assert sorted(client[DATABASE].list_collection_names()) == sorted(f"btc-price-zscore-{w}" for w in WINDOWS)
    keys = [index["key"] for index in client[DATABASE]["btc-price-zscore-30s"].list_indexes()]
    assert {"symbol": 1, "timestamp": 1} in [dict(key) for key in keys]
    document = client[DATABASE]["btc-price-zscore-1m"].find_one()
    assert document == {
        "_id": "BTCUSDT|2025-05-08T13:06:00.000Z",
        "timestamp": datetime.datetime(2025, 5, 8, 13, 6, tzinfo=datetime.UTC),
        "symbol": "BTCUSDT",
        "window": "1m",
        "zscore_price": 0.1,
    }


def test_an_empty_table_is_loaded_too(tmp_path: Path, store: MongoStore, client: MongoClient[Document]) -> None:
    append(tmp_path, rows([]))
    assert outcome(load(Lakehouse(str(tmp_path)), store)) == {(0, 0, 0)}
    assert len(client[DATABASE].list_collection_names()) == len(WINDOWS)


def test_some_windows_can_be_loaded_before_the_others(
    tmp_path: Path, store: MongoStore, client: MongoClient[Document]
) -> None:
    append(tmp_path, rows(range(5)))
    load(Lakehouse(str(tmp_path)), store, ["5m"])
    append(tmp_path, rows(range(5, 8)))
    assert {done.window: done.rows for done in load(Lakehouse(str(tmp_path)), store)} == {
        window: 3 if window == "5m" else 8 for window in WINDOWS
    }
    assert_holds(client, range(8))


def test_many_versions_are_loaded_in_parts_that_are_recorded(
    tmp_path: Path, store: MongoStore, client: MongoClient[Document], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestration.serving.load.VERSIONS_AT_ONCE", 2)
    for tick in range(5):
        append(tmp_path, rows([tick]))
    # Not after so many writes: how many batches the engine makes of two versions is its own affair.
    cut_off = CutOff(store, after_records=len(WINDOWS) * 2)
    with pytest.raises(PowerCut):
        load(Lakehouse(str(tmp_path)), cut_off)
    assert {record.delta_version for record in store.loaded().values()} == {3}
    assert {record.documents for record in store.loaded().values()} == {4}
    assert {done.rows for done in load(Lakehouse(str(tmp_path)), store)} == {1}
    assert_holds(client, range(5))


class PowerCut(Exception):
    """The load ends here, whatever it was doing."""


class CutOff(MongoStore):
    """A store that fails for good after so many writes (`write` and `remove`) or records."""

    def __init__(self, store: MongoStore, *, after_writes: int = 10**9, after_records: int = 10**9) -> None:
        self.__dict__.update(store.__dict__)
        self._writes, self._recordings = after_writes, after_records

    def write(self, window: str, documents: Sequence[Document]) -> None:
        self._writes -= 1
        if self._writes < 0:
            raise PowerCut
        super().write(window, documents)

    def remove(self, window: str, identities: Sequence[str]) -> None:
        self._writes -= 1
        if self._writes < 0:
            raise PowerCut
        super().remove(window, identities)

    def record(self, window: str, loaded: Loaded, found: Loaded | None = None) -> Loaded | None:
        self._recordings -= 1
        if self._recordings < 0:
            raise PowerCut
        return super().record(window, loaded, found)


@pytest.mark.parametrize("writes", [0, 1, 5, 6, 7, 11, 12])
def test_a_load_cut_off_while_writing_is_made_good(
    tmp_path: Path, store: MongoStore, client: MongoClient[Document], writes: int
) -> None:
    append(tmp_path, rows(range(4)))
    append(tmp_path, rows(range(4, 9)))
    lakehouse = Lakehouse(str(tmp_path))
    try:
        load(lakehouse, CutOff(store, after_writes=writes))
    except PowerCut:
        assert writes < 12
        assert store.loaded() == {}
    load(lakehouse, store)
    assert_holds(client, range(9))


@pytest.mark.parametrize("records", range(6))
def test_a_load_cut_off_while_recording_is_made_good(
    tmp_path: Path, store: MongoStore, client: MongoClient[Document], records: int
) -> None:
    append(tmp_path, rows(range(9)))
    with pytest.raises(PowerCut):
        load(Lakehouse(str(tmp_path)), CutOff(store, after_records=records))
    assert len(store.loaded()) == records
    repeated = load(Lakehouse(str(tmp_path)), store)
    assert [done.rows for done in repeated] == [0] * records + [9] * (6 - records)
    assert_holds(client, range(9))


def test_loads_at_the_same_time_do_no_harm(
    tmp_path: Path, store: MongoStore, client: MongoClient[Document], mongo_uri: str
) -> None:
    for tick in range(0, 3_000, 300):
        append(tmp_path, rows(range(tick, tick + 300)))

    def once(_: int) -> None:
        own = MongoStore(mongo_uri)
        try:
            load(Lakehouse(str(tmp_path)), own)
        finally:
            own.close()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(once, range(4)))
    assert_holds(client, range(3_000))
    assert {(record.delta_version, record.documents) for record in store.loaded().values()} == {(9, 3_000)}


def test_a_load_that_lags_does_not_take_back_what_another_recorded(tmp_path: Path, store: MongoStore) -> None:
    append(tmp_path, rows(range(3)))
    early = load(Lakehouse(str(tmp_path)), store, ["1h"])[0].loaded
    append(tmp_path, rows(range(3, 6)))
    late = load(Lakehouse(str(tmp_path)), store, ["1h"])[0].loaded
    store.record("1h", early)
    assert store.loaded()[COLLECTIONS["1h"]].delta_version == late.delta_version == 1


def test_a_table_made_anew_is_loaded_from_its_beginning(
    tmp_path: Path, store: MongoStore, client: MongoClient[Document]
) -> None:
    for tick in range(3):
        append(tmp_path, rows([tick]))
    load(Lakehouse(str(tmp_path)), store)
    shutil.rmtree(tmp_path / "zscores")
    append(tmp_path, rows(range(10)))
    assert outcome(load(Lakehouse(str(tmp_path)), store)) == {(10, 10, 0)}
    assert_holds(client, range(10))


def test_a_table_restored_to_an_earlier_version_is_loaded_from_its_beginning(
    tmp_path: Path, store: MongoStore, client: MongoClient[Document]
) -> None:
    append(tmp_path, rows([0]))
    append(tmp_path, rows([1]))
    shutil.copytree(tmp_path / "zscores", tmp_path / "copy")
    append(tmp_path, rows([2]))
    load(Lakehouse(str(tmp_path)), store)
    shutil.rmtree(tmp_path / "zscores")
    (tmp_path / "copy").rename(tmp_path / "zscores")
    assert {(done.rows, done.loaded.delta_version) for done in load(Lakehouse(str(tmp_path)), store)} == {(2, 1)}
    assert_holds(client, range(3))


def test_a_table_whose_early_log_is_gone_is_loaded_from_its_content(
    tmp_path: Path, store: MongoStore, client: MongoClient[Document]
) -> None:
    for tick in range(4):
        append(tmp_path, rows([tick]))
    DeltaTable(str(tmp_path / "zscores")).create_checkpoint()
    for version in range(3):
        (tmp_path / "zscores" / "_delta_log" / f"{version:020d}.json").unlink()
    append(tmp_path, rows([4]))
    assert {(done.rows, done.loaded.delta_version) for done in load(Lakehouse(str(tmp_path)), store)} == {(5, 4)}
    assert_holds(client, range(5))


def test_a_table_without_change_data_is_loaded_from_its_content(
    tmp_path: Path, store: MongoStore, client: MongoClient[Document]
) -> None:
    append(tmp_path, rows(range(3)), changes=False)
    append(tmp_path, rows(range(3, 5)), changes=False)
    load(Lakehouse(str(tmp_path)), store)
    append(tmp_path, rows(range(5, 6)), changes=False)
    assert {done.loaded.documents for done in load(Lakehouse(str(tmp_path)), store)} == {6}
    assert_holds(client, range(6))


def test_compacting_the_table_loads_nothing_again(
    tmp_path: Path, store: MongoStore, client: MongoClient[Document]
) -> None:
    for tick in range(4):
        append(tmp_path, rows([tick]))
    load(Lakehouse(str(tmp_path)), store)
    assert DeltaTable(str(tmp_path / "zscores")).optimize.compact()["numFilesRemoved"] == 4
    assert outcome(load(Lakehouse(str(tmp_path)), store)) == {(0, 4, 4)}
    assert_holds(client, range(4))


def test_what_was_vacuumed_before_it_was_loaded_is_loaded_from_the_content(
    tmp_path: Path, store: MongoStore, client: MongoClient[Document]
) -> None:
    append(tmp_path, rows(range(3)))
    load(Lakehouse(str(tmp_path)), store)
    for tick in range(3, 6):
        append(tmp_path, rows([tick]))
    DeltaTable(str(tmp_path / "zscores")).optimize.compact()
    append(tmp_path, rows([6]))
    # No maintenance does that: it holds back what is still to be loaded, and keeps all for a week.
    DeltaTable(str(tmp_path / "zscores")).vacuum(0, dry_run=False, enforce_retention_duration=False)
    assert {done.rows for done in load(Lakehouse(str(tmp_path)), store)} == {7}
    assert_holds(client, range(7))
    assert {done.rows for done in load(Lakehouse(str(tmp_path)), store)} == {0}


def test_what_was_removed_in_versions_that_nobody_can_follow_any_more_is_removed(
    tmp_path: Path, store: MongoStore, client: MongoClient[Document]
) -> None:
    append(tmp_path, rows(range(3)))
    append(tmp_path, rows(range(NEXT_DAY, NEXT_DAY + 3)))
    load(Lakehouse(str(tmp_path)), store)
    table = DeltaTable(str(tmp_path / "zscores"))
    table.delete("date = '2025-05-09'")
    append(tmp_path, rows([3]))
    DeltaTable(str(tmp_path / "zscores")).vacuum(0, dry_run=False, enforce_retention_duration=False)
    DeltaTable(str(tmp_path / "zscores")).create_checkpoint()
    for entry in sorted((tmp_path / "zscores" / "_delta_log").glob("*.json"))[:-1]:
        entry.unlink()  # as the log's clean-up does after a week
    load(Lakehouse(str(tmp_path)), store)
    assert_holds(client, range(4))


def test_a_table_that_was_put_back_and_has_gone_on_is_loaded_whole(
    tmp_path: Path, store: MongoStore, client: MongoClient[Document]
) -> None:
    append(tmp_path, rows(range(3)))
    shutil.copytree(tmp_path, tmp_path.with_name("copy"))
    append(tmp_path, rows(range(3, 6)))
    load(Lakehouse(str(tmp_path)), store)
    shutil.rmtree(tmp_path / "zscores")
    shutil.copytree(tmp_path.with_name("copy") / "zscores", tmp_path / "zscores")
    # With other rows in the versions of before, and more versions than were loaded.
    for tick in range(4, 8):
        append(tmp_path, rows([tick]))
    append(tmp_path, rows([3]))
    load(Lakehouse(str(tmp_path)), store)
    assert_holds(client, range(8))


def replace(lakehouse: Path, table: Any, condition: str = "date = '2025-05-08'") -> None:
    """Put rows in the place of those that meet a condition, in one commit, as a backfill does."""
    write_deltalake(str(lakehouse / "zscores"), table, mode="overwrite", predicate=condition)


NEXT_DAY = 864_000  # the tick that is a day after the first


def test_removed_rows_are_removed_documents(tmp_path: Path, store: MongoStore, client: MongoClient[Document]) -> None:
    append(tmp_path, rows(range(3)))
    append(tmp_path, rows(range(NEXT_DAY, NEXT_DAY + 3)))
    load(Lakehouse(str(tmp_path)), store)
    DeltaTable(str(tmp_path / "zscores")).delete("date = '2025-05-09'")
    load(Lakehouse(str(tmp_path)), store)
    assert_holds(client, range(3))


@pytest.mark.parametrize("after", [0, 1, 2, 3, 4])
def test_a_replaced_day_is_what_the_table_has_whenever_it_was_loaded(
    tmp_path: Path, store: MongoStore, client: MongoClient[Document], after: int
) -> None:
    """A tick is added, another is gone, a third comes back, rows are appended before and after."""
    others = range(NEXT_DAY, NEXT_DAY + 5)
    steps: list[tuple[Callable[[Path, Any], None], Sequence[int]]] = [
        (append, [*range(10), *others]),
        (replace, [*range(5), *range(6, 12)]),
        (append, range(20, 30)),
        (replace, [*range(1, 12), *range(20, 40)]),
    ]
    for number, (step, ticks) in enumerate(steps):
        step(tmp_path, rows(ticks))
        if number == after:
            load(Lakehouse(str(tmp_path)), store)
    load(Lakehouse(str(tmp_path)), store)
    assert_holds(client, [*range(1, 12), *range(20, 40), *others])


def test_replaced_values_are_loaded(tmp_path: Path, store: MongoStore, client: MongoClient[Document]) -> None:
    right, wrong = rows(range(9)), rows(range(100, 109))
    append(tmp_path, right.set_column(2, right.schema.field(2), wrong["z_scores"]))
    load(Lakehouse(str(tmp_path)), store)
    replace(tmp_path, right)
    assert {done.rows for done in load(Lakehouse(str(tmp_path)), store)} == {9}
    assert_holds(client, range(9))


@pytest.mark.parametrize("writes", range(0, 30, 2))
def test_a_load_of_a_replaced_day_that_is_cut_off_is_made_good(
    tmp_path: Path, store: MongoStore, client: MongoClient[Document], writes: int
) -> None:
    append(tmp_path, rows(range(10)))
    load(Lakehouse(str(tmp_path)), store)
    append(tmp_path, rows(range(NEXT_DAY, NEXT_DAY + 3)))
    replace(tmp_path, rows(range(5, 12)))
    try:
        load(Lakehouse(str(tmp_path)), CutOff(store, after_writes=writes))
    except PowerCut:
        assert {record.delta_version for record in store.loaded().values()} == {0}
    # What stays was there all the time.
    for window in WINDOWS:
        left = {document["_id"] for document in client[DATABASE][COLLECTIONS[window]].find()}
        assert left >= expected(range(5, 10), window).keys()
    load(Lakehouse(str(tmp_path)), store)
    assert_holds(client, [*range(5, 12), *range(NEXT_DAY, NEXT_DAY + 3)])


def test_a_row_that_comes_back_while_another_load_removes_it_is_there(
    tmp_path: Path, store: MongoStore, client: MongoClient[Document], mongo_uri: str
) -> None:
    append(tmp_path, rows(range(5)))
    load(Lakehouse(str(tmp_path)), store)
    replace(tmp_path, rows(range(3)))

    class Overtaken(CutOff):
        def remove(self, window: str, identities: Sequence[str]) -> None:
            if window == "30s":
                replace(tmp_path, rows(range(4)))
                own = MongoStore(mongo_uri)
                load(Lakehouse(str(tmp_path)), own)
                own.close()
            super().remove(window, identities)

    load(Lakehouse(str(tmp_path)), Overtaken(store))
    assert_holds(client, range(4))
    assert {record.delta_version for record in store.loaded().values()} == {2}


def test_a_row_with_other_windows_is_a_fault(tmp_path: Path, store: MongoStore) -> None:
    append(tmp_path, rows([0], windows=["30s", "1m", "5m", "15m", "1h", "30m"]))
    with pytest.raises(LoadError, match="in that order"):
        load(Lakehouse(str(tmp_path)), store)
    assert store.loaded() == {}


def test_without_a_table_the_reason_says_what_to_do(tmp_path: Path, store: MongoStore) -> None:
    with pytest.raises(LoadError, match="start the zscore stream"):
        load(Lakehouse(str(tmp_path)), store)


@pytest.mark.parametrize("symbol", ["$where", "a.b", '{"$gt": ""}', "_id", "\x00", "__proto__"])
def test_a_symbol_is_a_value_whatever_it_spells(
    tmp_path: Path, store: MongoStore, client: MongoClient[Document], symbol: str
) -> None:
    append(tmp_path, rows(range(3)))
    append(tmp_path, rows(range(3), symbol=symbol))
    for _ in range(2):  # a repeated load finds each document by a value, too
        load(Lakehouse(str(tmp_path)), store, ["30s"])
        store.forget("30s")
    found = {document["_id"]: document for document in client[DATABASE][COLLECTIONS["30s"]].find()}
    assert found == expected(range(3), "30s") | expected(range(3), "30s", symbol)


@pytest.mark.parametrize(
    "uri",
    [
        "mongodb://{}:Pl4nted/7d1f@127.0.0.1:1/",
        "mongodb://{}:Pl4nted@7d1f@127.0.0.1:1/",  # pragma: allowlist secret
        "mongodb://{}:Pl4nted7d1f@127.0.0.1:x/",  # pragma: allowlist secret
        "mongodb://{}:Pl4nted7d1f@127.0.0.1:1/?tls=true&tlsCAFile=/not/there",  # pragma: allowlist secret
    ],
)
def test_a_wrong_address_is_told_without_what_it_holds(uri: str) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        MongoStore(uri.format("anna"))
    assert "refuses" in fault(refusal.value)
    assert not re.search("Pl4nted|7d1f", "".join(traceback.format_exception(refusal.value)))
