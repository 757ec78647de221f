"""Rows to documents, and which versions are to be loaded."""

from __future__ import annotations

import datetime

import pyarrow as pa
import pytest

from orchestration.serving.load import documents_of, first_version
from orchestration.serving.mongo import COLLECTIONS, Loaded, LoadError
from tests.zscore_tables import rows
from tickhouse.contract.names import WINDOWS


def loaded(table_id: str, version: int) -> Loaded:
    return Loaded(table_id, version, 0, datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC))


@pytest.mark.parametrize(
    ("record", "version", "first"),
    [
        pytest.param(None, 3, 0, id="never loaded"),
        pytest.param(loaded("a", 1), 3, 2, id="behind"),
        pytest.param(loaded("a", 3), 3, 4, id="up to date"),
        pytest.param(loaded("b", 3), 3, 0, id="another table"),
        pytest.param(loaded("a", 4), 3, 0, id="the table went back"),
    ],
)
def test_first_version(record: Loaded | None, version: int, first: int) -> None:
    assert first_version(record, "a", version) == first


def batch(table: pa.Table) -> pa.RecordBatch:
    return table.combine_chunks().to_batches()[0]


def test_documents_have_the_form_of_the_contract() -> None:
    documents = documents_of(batch(rows([0, 1])), ["1h", "30s"])
    assert list(documents) == ["1h", "30s"]
    assert [
        (found["_id"], int(found["timestamp"]), found["symbol"], found["window"], found["zscore_price"])
        for found in documents["30s"]
    ] == [
        ("BTCUSDT|2025-05-08T13:06:00.000Z", 1_746_709_560_000, "BTCUSDT", "30s", None),
        ("BTCUSDT|2025-05-08T13:06:00.100Z", 1_746_709_560_100, "BTCUSDT", "30s", 1.0),
    ]
    assert [found["zscore_price"] for found in documents["1h"]] == [0.5, 1.5]


def test_a_slice_of_a_batch_gives_its_own_rows() -> None:
    whole = batch(rows(range(10)))
    assert documents_of(whole.slice(4, 3), ["5m"])["5m"] == documents_of(whole, ["5m"])["5m"][4:7]


def test_no_rows_no_documents() -> None:
    empty = pa.RecordBatch.from_pylist([], schema=rows([]).schema)
    assert documents_of(empty, list(WINDOWS)) == {window: [] for window in WINDOWS}


@pytest.mark.parametrize("windows", [list(WINDOWS)[:5], [*WINDOWS, "2h"], list(reversed(WINDOWS))])
def test_rows_with_other_windows_are_refused(windows: list[str]) -> None:
    table = rows([1])
    entries = [{"window": window, "zscore_price": 1.0} for window in windows]
    odd = table.set_column(2, table.schema.field(2), pa.array([entries], type=table.schema.field(2).type))
    with pytest.raises(LoadError, match="does not list"):
        documents_of(batch(odd), ["30s"])


def test_the_collections_are_named_after_their_windows() -> None:
    assert COLLECTIONS["15m"] == "btc-price-zscore-15m"
    assert list(COLLECTIONS) == ["30s", "1m", "5m", "15m", "30m", "1h"]
