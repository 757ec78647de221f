"""`tickhouse sql` answers queries over the tables and does nothing else, whatever it is given."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestration.sql import QueryFailed, query
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
    ],
)
def test_queries_are_answered(lakehouse: Path, sql: str, answer: list[dict[str, object]]) -> None:
    assert query(str(lakehouse), sql).to_pylist() == answer


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
    assert query(str(lakehouse), "SELECT count(*) AS n FROM zscores").to_pylist() == [{"n": 3}]


def test_the_refusal_names_what_was_asked_and_what_may_be(lakehouse: Path) -> None:
    with pytest.raises(QueryFailed, match="only queries are answered: SELECT, WITH, VALUES, not COPY"):
        query(str(lakehouse), "copy zscores to 'x'")
    with pytest.raises(QueryFailed, match=r"nowhere.*tables: zscores"):
        query(str(lakehouse), "SELECT * FROM nowhere")
