"""The judgement of what is in the tables and collections, as tables of cases."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from orchestration.monitoring.health_checks import ERROR, WARN, Severity
from orchestration.monitoring.table_checks import (
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
from orchestration.monitoring.table_rules import RULES, centre_bound
from tickhouse.contract.names import WINDOWS
from tickhouse.contract.tables import COLUMNS
from tickhouse.contract.topology import TABLES

DECLARED = [("symbol", "string"), ("price", "decimal(18,8)")]


def test_there_are_rules_and_columns_for_every_table_and_no_other() -> None:
    assert set(RULES) == set(COLUMNS) == set(TABLES)
    for table, rules in RULES.items():
        assert set(rules.identity) <= {column.name for column in COLUMNS[table]}
    assert {key.name for key in TABLE_CHECKS} == {
        *("schema", "no_duplicates", "no_gaps", "scores", "equals_table", "one_partition", "no_internal_rejects")
    }


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (DECLARED, "as declared"),
        (DECLARED[::-1], "as declared"),
        (DECLARED[:1], "lacks price decimal(18,8)"),
        ([*DECLARED, ("extra", "int")], "has extra int"),
        ([("symbol", "string"), ("price", "double")], "lacks price decimal(18,8) and has price double"),
    ],
)
def test_schema(found: Sequence[tuple[str, str]], said: str) -> None:
    outcome = judge_schema(DECLARED, found)
    assert (outcome.passed, outcome.description) == (said == "as declared", said)


def test_symbols_on_one_partition_each() -> None:
    assert judge_partitions({}).passed
    assert judge_partitions({"BTCUSDT": [2], "ETHUSDT": [2]}).passed
    outcome = judge_partitions({"BTCUSDT": [2, 0], "ETHUSDT": [2]})
    assert not outcome.passed
    assert outcome.description.startswith("1 symbols lie on more than one partition, such as BTCUSDT on 0, 2:")


def test_failures_of_the_rule_itself() -> None:
    assert judge_internal_rejects(0, None).passed
    outcome = judge_internal_rejects(3, "internal: MemoryError")
    assert not outcome.passed and "failed on 3 messages" in outcome.description


def test_duplicates() -> None:
    assert judge_duplicates(100, 0, None).passed
    outcome = judge_duplicates(100, 2, "BTCUSDT 2025-05-08")
    assert not outcome.passed and "2 identities occur more than once, such as BTCUSDT" in outcome.description


@pytest.mark.parametrize(
    ("longest", "step", "passed"),
    [
        ({}, 0.1, True),
        ({"BTCUSDT": 10.0}, 0.1, True),
        ({"BTCUSDT": 10.1}, 0.1, False),
        ({"BTCUSDT": 0.1, "ETHUSDT": 99.0}, 0.1, False),
        ({"BTCUSDT": 99.0}, 1.0, True),
        ({"BTCUSDT": 86_400.0}, None, True),
    ],
)
def test_gaps(longest: dict[str, float], step: float | None, passed: bool) -> None:
    assert judge_gaps(longest, step).passed == passed


@pytest.mark.parametrize(
    ("scores", "passed", "severity"),
    [
        ({"30s": Scores(9, 0, 0.1), "1h": Scores(9, 0, -2.4)}, True, WARN),
        ({"30s": Scores(9, 0, None)}, True, WARN),
        ({"30s": Scores(9, 0, 0.9)}, False, WARN),
        ({"1h": Scores(9, 0, -2.6)}, False, WARN),
        ({"30s": Scores(9, 1, 0.0)}, False, ERROR),
    ],
)
def test_scores(scores: dict[str, Scores], passed: bool, severity: Severity) -> None:
    outcome = judge_scores(scores, 3_600)
    assert (outcome.passed, outcome.severity) == (passed, severity)


def test_the_bound_for_the_mean_is_wider_for_longer_windows_and_shorter_stretches() -> None:
    bounds = [centre_bound(length / 1_000, 3_600) for length in WINDOWS.values()]
    assert bounds == sorted(bounds) and 0.5 < bounds[0] < 0.8 and bounds[-1] == 2.5
    assert centre_bound(30, 60) > centre_bound(30, 3_600)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (Comparison(100, 100, 100, 50, [], []), "equal"),
        (Comparison(100, 120, 110, 50, [], []), "equal"),  # a load is under way
        (Comparison(0, 0, 0, 0, [], []), "equal"),
        (Comparison(100, 120, 99, 50, [], []), "99 documents for 100 rows"),
        (Comparison(100, 120, 121, 50, [], []), "121 documents for 100 rows"),
        (Comparison(100, 100, 100, 50, ["a"], ["c", "b"]), "1 missing, such as a; 2 different, such as b, c"),
    ],
)
def test_equality(found: Comparison, said: str) -> None:
    outcome = judge_equality(found)
    assert (outcome.passed, outcome.description) == (said == "equal", said)
