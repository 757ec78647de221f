"""`tickhouse sql` answers queries over the tables and does nothing else, whatever it is given."""

from __future__ import annotations

import csv
import datetime
import io
import json
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from orchestration.cli.sql_output import OutputExists, write_csv, write_file
from orchestration.lakehouse.sql import EXAMPLES, QueryFailed, query, tables
from tests.reference_tables import make
from tests.zscore_tables import append, rows


@pytest.fixture
def lakehouse(tmp_path: Path) -> Path:
    append(tmp_path / "lakehouse", rows(range(3)))
    return tmp_path / "lakehouse"


@pytest.mark.parametrize(
    ("sql", "answer"),
    [
        ("SELECT count(*) AS n FROM zscores", [{"n": 3}]),
        ("  select symbol from zscores limit 1 ; ", [{"symbol": "BTCUSDT"}]),
        ("-- how many\n/* really */ SELECT count(*) AS n FROM zscores -- all", [{"n": 3}]),
        ("WITH x AS (SELECT 1 AS n UNION ALL SELECT 2) SELECT n FROM x ORDER BY n DESC", [{"n": 2}, {"n": 1}]),
        ("(SELECT 1 AS n) UNION ALL (SELECT 2) ORDER BY n", [{"n": 1}, {"n": 2}]),
        ("VALUES (1)", [{"column1": 1}]),
        ("SELECT ';)' AS n", [{"n": ";)"}]),
        ("SELECT 1 AS n; -- all; of it", [{"n": 1}]),
        ("SELECT 1 AS n -- one; really", [{"n": 1}]),
        ("SELECT * FROM gaps", []),
        ("SELECT count(*) AS n FROM backfills JOIN prices USING (symbol)", [{"n": 0}]),
        (
            "SELECT count(*) AS n, max(z_scores[1]['zscore_price']) FILTER (WHERE false) AS z FROM zscores, lower",
            [{"n": 0, "z": None}],
        ),
    ],
)
def test_queries_are_answered(lakehouse: Path, sql: str, answer: list[dict[str, object]]) -> None:
    assert list(query(str(lakehouse), sql).rows()) == answer


@pytest.mark.parametrize(
    "sql",
    [
        "COPY (SELECT 1) TO '{out}' STORED AS CSV",
        "COPY zscores TO '{out}' STORED AS PARQUET",
        "/* SELECT */ COPY (SELECT 1) TO '{out}' STORED AS CSV",
        "-- SELECT\nCOPY (SELECT 1) TO '{out}' STORED AS CSV",
        "EXPLAIN ANALYZE COPY (SELECT 1) TO '{out}' STORED AS CSV",
        "SELECT 1; COPY (SELECT 1) TO '{out}' STORED AS CSV",
        "SELECT 1) LIMIT 0; COPY (SELECT 1) TO '{out}' STORED AS CSV --",
        "SELECT 1) SELECT 1; COPY (SELECT 1) TO '{out}' STORED AS CSV --",
        "SELECT 1) SELECT $$'$$; COPY (SELECT 1) TO '{out}' STORED AS CSV -- $$'$$",
        "SELECT $$'$$; COPY (SELECT 1) TO '{out}' STORED AS CSV -- $$'$$",
        "SELECT 1), x AS (COPY (SELECT 1) TO '{out}' STORED AS CSV",
        "WITH x AS (SELECT 1) COPY (SELECT 1) TO '{out}' STORED AS CSV",
        "WITH x AS (SELECT 1) DELETE FROM zscores",
        "WITH x AS (SELECT 1) UPDATE zscores SET symbol = 'X'",
        "SELECT 1) UNION ALL (COPY (SELECT 1) TO '{out}' STORED AS CSV",
        "SELECT * FROM (COPY (SELECT 1) TO '{out}' STORED AS CSV)",
        "WITH x AS (COPY (SELECT 1) TO '{out}' STORED AS CSV) SELECT 1",
        "CREATE EXTERNAL TABLE p (line VARCHAR) STORED AS CSV LOCATION '{secret}'",
        "CREATE EXTERNAL TABLE p STORED AS PARQUET LOCATION '{out}'",
        "CREATE TABLE t AS SELECT 1",
        "CREATE VIEW v AS SELECT 1",
        "CREATE FUNCTION f(x INT) RETURNS INT RETURN x",
        "INSERT INTO zscores SELECT * FROM zscores",
        "INSERT OVERWRITE zscores SELECT * FROM zscores",
        "WITH x AS (SELECT * FROM zscores) INSERT INTO zscores SELECT * FROM x",
        "WITH x AS (INSERT INTO zscores SELECT * FROM zscores) SELECT 1",
        "UPDATE zscores SET symbol = 'X'",
        "DELETE FROM zscores",
        "TRUNCATE TABLE zscores",
        "DROP TABLE zscores",
        "SET datafusion.execution.batch_size = 1",
        "PREPARE q AS SELECT 1",
        "SHOW ALL",
        "SELECT * FROM '{secret}'",
        'SELECT * FROM "{secret}"',
        "SELECT * FROM read_csv('{secret}')",
        "SELECT * FROM read_parquet('{secret}')",
        "SELECT * FROM parquet_metadata('{secret}')",
        "SELECT * FROM information_schema.tables",
        "SELECT 1) AS a, (SELECT 2",
        "SELECT 1), b AS (SELECT 2",
        "SELECT 1 /*",
        "",
        ";",
        "--",
    ],
)
def test_all_else_is_refused_and_touches_nothing(tmp_path: Path, lakehouse: Path, sql: str) -> None:
    secret, out = tmp_path / "secret.csv", tmp_path / "out.csv"
    secret.write_text("planted\n")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    with pytest.raises(QueryFailed) as refusal:
        query(str(lakehouse), sql.replace("{out}", str(out)).replace("{secret}", str(secret)))
    assert "planted" not in str(refusal.value)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    assert list(query(str(lakehouse), "SELECT count(*) AS n FROM zscores").rows()) == [{"n": 3}]


def test_the_refusal_names_what_was_asked_and_what_may_be(lakehouse: Path) -> None:
    with pytest.raises(QueryFailed, match="only queries are answered: SELECT, WITH, VALUES, not COPY"):
        query(str(lakehouse), "copy zscores to 'x'")
    with pytest.raises(QueryFailed, match=r"nowhere.*tables: zscores"):
        query(str(lakehouse), "SELECT * FROM nowhere")


@pytest.mark.parametrize(
    ("sql", "sentence"),
    [
        ("SELECT 1; SELECT 2", "one query at a time"),
        ("DESCRIBE zscores", "`tickhouse sql` without a query"),
        ("show tables", "not SHOW; which tables and columns there are, `tickhouse sql` without a query says"),
        ("SELECT * FROM zscore", "there is no table zscore: did you mean zscores? (tables: zscores)"),
        ("SELECT * FROM PRICES", "there is no table PRICES: did you mean prices?"),
        ("SELECT * FROM gap", "did you mean gaps?"),
        ("SELECT z.z_scores[2].zscore_price FROM zscores z", "write z.z_scores[2]['zscore_price']"),
        ("SELECT z_scores.zscore_price FROM zscores", "write z_scores[1]['zscore_price']"),
        ("SELECT z_scores['30s'] FROM zscores", "write z_scores[1]['zscore_price']"),
        ("SELECT * FROM zscores\nGROUP symbol", "at line 2, column 1 (unexpected: GROUP); the dialect is DataFusion's"),
        ("SELECT * FROM zscores WHERE", "the query ends too early"),
        ("SELECT symbol) FROM zscores", "its brackets do not match"),
        ("SELECT count(symbol FROM zscores", "at line 1, column 21 (unexpected: FROM)"),
        ("SELECT symbl FROM zscores", "No field named symbl. Did you mean 'zscores.symbol'?"),
        ('SELECT * FROM zscores WHERE symbol = "BTCUSDT"', "Text is written in single quotes: 'BTCUSDT'"),
        ("SELECT * FROM zscores WHERE date > 'x'", "Cannot cast string 'x'"),
    ],
)
def test_what_is_wrong_with_a_query_is_said_of_the_query(lakehouse: Path, sql: str, sentence: str) -> None:
    with pytest.raises(QueryFailed) as refusal:
        query(str(lakehouse), sql)
    said = str(refusal.value)
    assert sentence in said
    assert not any(internal in said for internal in ("datafusion.public", "ParserError", "Ident {", "Error during"))


ALL_KINDS = (
    "SELECT CAST('0.00000123' AS DECIMAL(18,8)) AS price, symbol, timestamp, z_scores, date, "
    "CAST('x' AS BYTEA) AS raw FROM zscores ORDER BY timestamp"
)


MANY = 20_000
LAST_FAILS = f"SELECT symbol, 1 / (CAST(z_scores[2]['zscore_price'] AS BIGINT) - {MANY - 1}) AS n FROM zscores"
"""The last row cannot be computed."""


@pytest.fixture(scope="module")
def long_table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    lakehouse = tmp_path_factory.mktemp("long")
    append(lakehouse, rows(range(MANY)))
    return lakehouse


def test_a_long_answer_is_computed_while_it_is_taken(long_table: Path) -> None:
    answer = query(str(long_table), LAST_FAILS)
    assert 0 < next(answer.batches).num_rows < MANY
    with pytest.raises(QueryFailed, match=r"[Dd]ivi"):
        list(answer.batches)


def test_parquet_keeps_decimals_utc_and_parts(lakehouse: Path, tmp_path: Path) -> None:
    assert write_file(query(str(lakehouse), ALL_KINDS), tmp_path / "rows.parquet", "parquet", overwrite=False) == 3
    table = pq.read_table(tmp_path / "rows.parquet")
    scores = pa.list_(pa.struct([("window", pa.string()), ("zscore_price", pa.float64())]))
    assert table["price"].to_pylist() == [Decimal("0.00000123")] * 3
    assert table.schema.field("price").type == pa.decimal128(18, 8)
    assert table.schema.field("timestamp").type == pa.timestamp("us", "UTC")
    assert table.schema.field("symbol").type == pa.string()
    assert table.schema.field("z_scores").type.equals(scores)
    assert table["z_scores"].to_pylist() == rows(range(3))["z_scores"].to_pylist()
    assert table["timestamp"].to_pylist() == rows(range(3))["timestamp"].to_pylist()
    assert pq.ParquetFile(tmp_path / "rows.parquet").num_row_groups == 1


def test_parquet_of_nothing_has_the_columns(lakehouse: Path, tmp_path: Path) -> None:
    nothing = query(str(lakehouse), "SELECT symbol FROM zscores WHERE symbol = 'NONE'")
    assert write_file(nothing, tmp_path / "none.parquet", "parquet", overwrite=False) == 0
    assert pq.read_schema(tmp_path / "none.parquet").names == ["symbol"]


def test_csv_has_every_column_and_json_for_what_has_parts(lakehouse: Path) -> None:
    stream = io.StringIO()
    assert write_csv(query(str(lakehouse), ALL_KINDS), stream) == 3
    header, first, *_ = csv.reader(io.StringIO(stream.getvalue()))
    assert header == ["price", "symbol", "timestamp", "z_scores", "date", "raw"]
    assert first[:3] == ["0.00000123", "BTCUSDT", "2025-05-08T13:06:00+00:00"]
    assert json.loads(first[3])[1] == {"window": "1m", "zscore_price": 0.1}
    assert first[4:] == [str(datetime.date(2025, 5, 8)), "x"]


@pytest.mark.parametrize("form", ["csv", "json", "parquet"])
def test_a_file_is_there_whole_or_not_at_all(lakehouse: Path, long_table: Path, tmp_path: Path, form: str) -> None:
    file = tmp_path / "files" / "rows"
    file.parent.mkdir()
    with pytest.raises(QueryFailed, match=r"[Dd]ivi"):
        write_file(query(str(long_table), LAST_FAILS), file, form, overwrite=False)
    assert list(file.parent.iterdir()) == []
    write_file(query(str(lakehouse), "SELECT 1 AS n"), file, form, overwrite=False)
    before = file.read_bytes()
    with pytest.raises(OutputExists, match="--overwrite"):
        write_file(query(str(lakehouse), "SELECT 2 AS n"), file, form, overwrite=False)
    assert file.read_bytes() == before
    write_file(query(str(lakehouse), "SELECT 2 AS n"), file, form, overwrite=True)
    assert file.read_bytes() != before
    assert list(file.parent.iterdir()) == [file]


def test_what_there_is_to_ask(tmp_path: Path) -> None:
    with pytest.raises(QueryFailed, match="there are no tables"):
        tables(str(tmp_path))
    make(tmp_path, seed=1, symbols=("BTCUSDT",), ticks=500)
    found = {table.name: table for table in tables(str(tmp_path))}
    assert list(found) == ["prices", "rejects", "moving_stats", "zscores", "higher", "lower"]
    assert found["prices"].rows == next(query(str(tmp_path), "SELECT count(*) AS n FROM prices").rows())["n"]
    assert found["prices"].columns[0] == ("symbol", "string", "trading pair")
    for question, sql in EXAMPLES.items():
        assert list(query(str(tmp_path), sql).rows()), question
