"""Checks of what is in the tables and collections: which there are, and the judgement as pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from orchestration.monitoring.health_checks import ERROR, WARN, CheckKey, Outcome
from orchestration.monitoring.table_rules import COMPARED_ROWS, GAP_STEPS, RECENT_SECONDS, RULES, centre_bound
from orchestration.serving.cutoffs import Kept, cutoff_text
from orchestration.serving.mongo import COLLECTION_ASSETS
from tickhouse.contract.names import WINDOWS

_RECENT = f"in the last {RECENT_SECONDS / 60:.0f} minutes"
_SHOWN = 5
NOTHING = Outcome(True, "there is nothing to check yet", WARN)

TABLE_CHECKS: dict[CheckKey, str] = {
    **{CheckKey(table, "schema"): "The table has the columns that are declared, and no others." for table in RULES},
    **{
        CheckKey(table, "no_duplicates"): f"No two rows {_RECENT} have the same {', '.join(rules.identity)}."
        for table, rules in RULES.items()
    },
    **{
        CheckKey(table, "no_gaps"): f"Ticks of a symbol follow one another within {GAP_STEPS} polling steps, {_RECENT} "
        "of a live source."
        for table, rules in RULES.items()
        if rules.gaps
    },
    **{
        CheckKey(table, "scores"): f"Every z-score {_RECENT} is finite or null, and each window's are centred."
        for table, rules in RULES.items()
        if rules.scores
    },
    **{
        CheckKey(table, "one_partition"): f"Each symbol's messages {_RECENT} lie on one partition of the topic: on two "
        "they have no order."
        for table, rules in RULES.items()
        if rules.partitions
    },
    **{
        CheckKey(table, "no_internal_rejects"): f"The accept rule itself failed on no message {_RECENT}."
        for table, rules in RULES.items()
        if rules.reasons
    },
    **{
        CheckKey(asset, "equals_table"): f"There are as many documents as rows of zscores, from where on "
        f"they are kept, and the newest {COMPARED_ROWS:,} {_RECENT} are equal."
        for asset in COLLECTION_ASSETS.values()
    },
}
"""Every check that reads tables, and what it means."""


def judge_schema(declared: Sequence[tuple[str, str]], found: Sequence[tuple[str, str]]) -> Outcome:
    """Whether the columns, each a name and a type, are those declared, in whatever order."""
    missing, foreign = set(declared) - set(found), set(found) - set(declared)
    said = [f"lacks {_columns(missing)}"] if missing else []
    said += [f"has {_columns(foreign)}"] if foreign else []
    return Outcome(not said, " and ".join(said) or "as declared", ERROR)


def _columns(columns: set[tuple[str, str]]) -> str:
    return ", ".join(f"{name} {kind}" for name, kind in sorted(columns))


def judge_duplicates(rows: int, repeated: int, example: str | None) -> Outcome:
    """`repeated`: identities that more than one row has, out of `rows` rows; `example`: one of them."""
    said = "none" if not repeated else f"{repeated} identities occur more than once, such as {example}"
    return Outcome(not repeated, said, ERROR, {"rows": rows, "repeated": repeated})


def judge_partitions(partitions: Mapping[str, Sequence[int]]) -> Outcome:
    """`partitions` by symbol: on which ones its messages are."""
    spread = {symbol: sorted(numbers) for symbol, numbers in partitions.items() if len(numbers) > 1}
    shown = (f"{symbol} on {', '.join(map(str, numbers))}" for symbol, numbers in sorted(spread.items())[:_SHOWN])
    said = (
        f"{len(spread)} symbols lie on more than one partition, such as {'; '.join(shown)}: have all producers use "
        "Kafka's default partitioner (murmur2), then backfill the days of these symbols"
    )
    return Outcome(not spread, said if spread else "one for each", ERROR, {"symbols": len(partitions)})


def judge_internal_rejects(rejects: int, example: str | None) -> Outcome:
    """`rejects`: messages on which the accept rule failed; `example`: the reason of one of them."""
    said = f"the accept rule failed on {rejects:,} messages, which are in rejects: report this, such as {example}"
    return Outcome(not rejects, said if rejects else "none", ERROR, {"rejects": rejects})


def judge_gaps(longest: Mapping[str, float], step_seconds: float | None) -> Outcome:
    """`longest`: seconds between two ticks, by symbol; `step_seconds`: of a live source, None for a recording."""
    metadata = {f"longest_seconds_{symbol}": seconds for symbol, seconds in longest.items()}
    if step_seconds is None:
        return Outcome(True, "no live source: gaps are those of a recording", WARN, metadata)
    limit = GAP_STEPS * step_seconds
    wide = {symbol: seconds for symbol, seconds in longest.items() if seconds > limit}
    said = ", ".join(f"{symbol}: {seconds:.1f} s without a tick" for symbol, seconds in sorted(wide.items())[:_SHOWN])
    return Outcome(not wide, said or "within bounds", WARN, metadata | {"limit": limit})


class Scores(NamedTuple):
    """The z-scores of one window in a stretch of time. `mean` is None when none is finite."""

    rows: int
    not_finite: int
    """NaN or infinite; null is neither."""
    mean: float | None


def judge_scores(scores: Mapping[str, Scores], stretch_seconds: float) -> Outcome:
    """`scores` by window, over `stretch_seconds`. What is not finite is a fault, a mean that is off a warning."""
    broken = {window: found.not_finite for window, found in scores.items() if found.not_finite}
    metadata = {f"mean_{window}": found.mean for window, found in scores.items() if found.mean is not None}
    if broken:
        said = ", ".join(f"{count} of {window}" for window, count in broken.items())
        return Outcome(False, f"not finite: {said}", ERROR, metadata)
    off = [
        f"{window}: mean {found.mean:+.2f}, at most {bound:.2f} is usual"
        for window, found in scores.items()
        if found.mean is not None
        and abs(found.mean) > (bound := centre_bound(WINDOWS[window] / 1_000, max(stretch_seconds, 1.0)))
    ]
    return Outcome(not off, "; ".join(off) or "finite and centred", WARN, metadata)


class Comparison(NamedTuple):
    """A collection beside the table at the version that was loaded, from where on documents are kept."""

    rows: int
    """Of that version."""
    rows_now: int
    """Of the newest version, seen after the documents were counted: a load may be under way."""
    documents: int
    compared: int
    missing: Sequence[str]
    different: Sequence[str]
    """Identities of documents that are not there, or that have another value."""
    kept: Kept = ()


def judge_equality(found: Comparison) -> Outcome:
    """Whether a collection holds what the table does, as far as it was compared."""
    said = []
    if not found.rows <= found.documents <= max(found.rows, found.rows_now):
        said.append(f"{found.documents:,} documents for {found.rows:,} rows")
    for what, identities in (("missing", found.missing), ("different", found.different)):
        if identities:
            said.append(f"{len(identities):,} {what}, such as {', '.join(sorted(identities)[:_SHOWN])}")
    metadata = {"rows": found.rows, "documents": found.documents, "compared": found.compared}
    equal = f"equal; kept {cutoff_text(found.kept)}" if found.kept else "equal"
    return Outcome(not said, "; ".join(said) or equal, ERROR, metadata)
