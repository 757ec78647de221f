"""What the checks of tables and collections are judged by: read from bounded, recent stretches, without a JVM."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence

from deltalake.exceptions import DeltaError

from orchestration.lakehouse.tables import Lakehouse, TableVersion
from orchestration.lakehouse.time_range import TimeRange, time_range_of
from orchestration.monitoring.health_checks import ERROR, WARN, CheckKey, Outcome
from orchestration.monitoring.table_checks import (
    NOTHING,
    TABLE_CHECKS,
    Comparison,
    Scores,
    judge_duplicates,
    judge_equality,
    judge_gaps,
    judge_internal_rejects,
    judge_partitions,
    judge_schema,
    judge_scores,
)
from orchestration.monitoring.table_rules import COMPARED_ROWS, RECENT_SECONDS, RULES
from orchestration.serving.cutoffs import Kept, kept_condition
from orchestration.serving.load import COLUMNS, documents_of
from orchestration.serving.mongo import COLLECTIONS, TABLE, Loaded, MongoStore
from tickhouse.contract.names import WINDOWS
from tickhouse.contract.tables import COLUMNS as DECLARED
from tickhouse.contract.validation import INTERNAL
from tickhouse.table_checksums import TableDamaged

_COUNT_SECONDS = 60.0


def check_table(
    lakehouse: Lakehouse, table: str, step_seconds: float | None, live: float | None
) -> dict[CheckKey, Outcome]:
    """The outcome of every check of one table.

    `step_seconds`: between two polls of a live source, None for a recording; `live`: since when that source has been
    sending, in epoch seconds: that there were no ticks before is not its fault.
    """
    names = [key.name for key in TABLE_CHECKS if key.asset == table]
    try:
        return _check_table(lakehouse, table, names, step_seconds, live)
    except TableDamaged as error:
        return {CheckKey(table, name): Outcome(False, f"{error}", ERROR) for name in names}


def _check_table(
    lakehouse: Lakehouse, table: str, names: Sequence[str], step_seconds: float | None, live: float | None
) -> dict[CheckKey, Outcome]:
    rules = RULES[table]
    if lakehouse.version(table) is None:
        return {CheckKey(table, name): NOTHING for name in names}
    declared = [(column.name, column.type) for column in DECLARED[table]]
    schema = judge_schema(declared, [(name, kind) for name, kind, _ in lakehouse.columns(table)])
    outcomes = {CheckKey(table, "schema"): schema}
    recent = time_range_of(lakehouse, table, RECENT_SECONDS)
    for name in names[1:]:
        if recent is None:
            outcome = NOTHING
        elif not schema.passed:
            # Queries speak of the declared columns.
            outcome = Outcome(False, "not looked for: the table has not the columns that are declared", WARN)
        elif name == "no_duplicates":
            outcome = judge_duplicates(*_duplicates(lakehouse, table, recent, rules.identity))
        elif name == "no_gaps":
            outcome = _gaps(lakehouse, table, step_seconds, live)
        elif name == "one_partition":
            outcome = judge_partitions(_partitions(lakehouse, table, recent))
        elif name == "no_internal_rejects":
            outcome = judge_internal_rejects(*_internal_rejects(lakehouse, table, recent))
        else:
            outcome = judge_scores(_scores(lakehouse, table, recent), recent.seconds)
        outcomes[CheckKey(table, name)] = outcome
    return outcomes


def _duplicates(
    lakehouse: Lakehouse, table: str, recent: TimeRange, identity: Sequence[str]
) -> tuple[int, int, str | None]:
    """Rows, identities that occur more than once, and one of these."""
    columns = ", ".join(f'"{name}"' for name in identity)
    found = lakehouse.query(
        f"SELECT {columns}, n, sum(n) OVER () AS total, sum(CASE WHEN n > 1 THEN 1 ELSE 0 END) OVER () AS repeated "  # noqa: S608
        f'FROM (SELECT {columns}, count(*) AS n FROM "{table}" WHERE {recent.condition} GROUP BY {columns}) '
        f"ORDER BY n DESC LIMIT 1",
        **{table: (table, recent.version)},
    ).to_pylist()
    if not found:
        return 0, 0, None
    first = found[0]
    example = " ".join(str(first[name]) for name in identity)
    return int(first["total"]), int(first["repeated"]), example if first["n"] > 1 else None


def _gaps(lakehouse: Lakehouse, table: str, step_seconds: float | None, live: float | None) -> Outcome:
    begin = None if live is None else datetime.datetime.fromtimestamp(live, datetime.UTC)
    recent = time_range_of(lakehouse, table, RECENT_SECONDS, not_before=begin)
    if recent is None:
        return NOTHING
    found = lakehouse.query(
        "SELECT symbol, max(gap) AS longest FROM (SELECT symbol, timestamp - lag(timestamp) OVER "  # noqa: S608
        f'(PARTITION BY symbol ORDER BY timestamp) AS gap FROM "{table}" WHERE {recent.condition}) GROUP BY symbol',
        **{table: (table, recent.version)},
    ).to_pylist()
    longest = {row["symbol"]: row["longest"].total_seconds() for row in found if row["longest"] is not None}
    return judge_gaps(longest, step_seconds)


def _partitions(lakehouse: Lakehouse, table: str, recent: TimeRange) -> dict[str, list[int]]:
    found = lakehouse.query(
        f'SELECT DISTINCT symbol, "partition" AS number FROM "{table}" WHERE {recent.condition}',  # noqa: S608
        **{table: (table, recent.version)},
    ).to_pylist()
    partitions: dict[str, list[int]] = {}
    for row in found:
        partitions.setdefault(row["symbol"], []).append(row["number"])
    return partitions


def _internal_rejects(lakehouse: Lakehouse, table: str, recent: TimeRange) -> tuple[int, str | None]:
    (row,) = lakehouse.query(
        f'SELECT count(*) AS n, min(reason) AS example FROM "{table}" WHERE {recent.condition} '  # noqa: S608
        f"AND reason LIKE '{INTERNAL}%'",
        **{table: (table, recent.version)},
    ).to_pylist()
    return row["n"], row["example"]


def _scores(lakehouse: Lakehouse, table: str, recent: TimeRange) -> dict[str, Scores]:
    parts = []
    for number, window in enumerate(WINDOWS, start=1):
        value = f"z_scores[{number}]['zscore_price']"
        finite = f"{value} - {value} = 0"  # neither NaN nor infinite, nor null
        parts += [
            f'sum(CASE WHEN {value} IS NOT NULL AND NOT ({finite}) THEN 1 ELSE 0 END) AS "broken_{window}"',
            f'avg(CASE WHEN {finite} THEN {value} END) AS "mean_{window}"',
        ]
    (row,) = lakehouse.query(
        f'SELECT count(*) AS n, {", ".join(parts)} FROM "{table}" WHERE {recent.condition}',  # noqa: S608
        **{table: (table, recent.version)},
    ).to_pylist()
    return {window: Scores(row["n"], row[f"broken_{window}"] or 0, row[f"mean_{window}"]) for window in WINDOWS}


def compare(lakehouse: Lakehouse, store: MongoStore, windows: Sequence[str]) -> dict[str, Outcome]:
    """Whether the collections of `windows` hold what the table does, as far as it is kept. Raises PyMongoError."""
    records = store.loaded()
    outcomes = _compare(lakehouse, store, windows, records)
    now = store.loaded()
    # Where retention has cut something off meanwhile, that was not owed any more.
    cut = [window for window in windows if _kept(now, window) != _kept(records, window)]
    return outcomes | _compare(lakehouse, store, cut, now)


def _kept(records: Mapping[str, Loaded], window: str) -> Kept:
    record = records.get(COLLECTIONS[window])
    return () if record is None else record.kept


def _compare(
    lakehouse: Lakehouse, store: MongoStore, windows: Sequence[str], records: Mapping[str, Loaded]
) -> dict[str, Outcome]:
    # Read after the records: what they speak of is there by now.
    current = lakehouse.version(TABLE)
    outcomes = {}
    alike: dict[tuple[int, Kept], list[str]] = {}
    for window in windows:
        record = records.get(COLLECTIONS[window])
        outcome = _why_not(record, current)
        if outcome is not None or record is None:
            outcomes[window] = outcome or NOTHING
        else:
            alike.setdefault((record.delta_version, record.kept), []).append(window)
    for (version, kept), loaded in alike.items():
        try:
            outcomes |= _compare_at(lakehouse, store, version, kept, loaded)
        except TableDamaged as error:
            outcomes |= dict.fromkeys(loaded, Outcome(False, f"{error}", ERROR))
        except DeltaError as error:
            said = f"version {version}, which is loaded, cannot be read any more: {error}"
            outcomes |= dict.fromkeys(loaded, Outcome(False, said.splitlines()[0], WARN))
    return outcomes


def _why_not(record: Loaded | None, current: TableVersion | None) -> Outcome | None:
    """What is to be said where nothing can be compared."""
    if current is None:
        return NOTHING
    if record is None:
        return Outcome(False, "nothing is loaded yet: launch load_mongodb", WARN)
    if record.table_id != current.table_id or record.delta_version > current.version:
        return Outcome(False, "another table is loaded: launch load_mongodb", ERROR)
    return None


def _compare_at(
    lakehouse: Lakehouse, store: MongoStore, version: int, kept: Kept, windows: Sequence[str]
) -> dict[str, Outcome]:
    rows = _rows(lakehouse, kept, version)
    expected: dict[str, dict[str, float | None]] = {window: {} for window in windows}
    recent = time_range_of(lakehouse, TABLE, RECENT_SECONDS, version=version)
    if recent is not None:
        newest = lakehouse.query(
            f"SELECT {', '.join(COLUMNS)} FROM {TABLE} WHERE {recent.condition} AND {kept_condition(kept)} "  # noqa: S608
            f"ORDER BY timestamp DESC LIMIT {COMPARED_ROWS}",
            **{TABLE: (TABLE, version)},
        )
        for batch in newest.to_batches():
            for window, documents in documents_of(batch, windows).items():
                expected[window] |= {each["_id"]: each["zscore_price"] for each in documents}
    outcomes = {}
    for window in windows:
        wanted = expected[window]
        found = store.scores(window, list(wanted))
        count = store.documents(window)
        rows_now = rows if count == rows else _rows(lakehouse, kept)
        if not rows <= count <= rows_now:
            # The quick count may be off after a crash of the server, and includes what retention has yet to remove.
            count, rows_now = store.count(window, kept, _COUNT_SECONDS), _rows(lakehouse, kept)
        missing = [identity for identity in wanted if identity not in found]
        different = [identity for identity, value in found.items() if value != wanted[identity]]
        comparison = Comparison(rows, rows_now, count, len(wanted), missing, different, kept)
        outcomes[window] = judge_equality(comparison)
    return outcomes


def _rows(lakehouse: Lakehouse, kept: Kept, version: int | None = None) -> int:
    """How many rows of a version (default: the newest) have documents that are kept."""
    if not kept:
        return lakehouse.content(TABLE, version).rows
    count = f"SELECT count(*) AS n FROM {TABLE} WHERE {kept_condition(kept)}"  # noqa: S608
    (row,) = lakehouse.query(count, **{TABLE: (TABLE, version)}).to_pylist()
    return int(row["n"])
