"""Three questions to the tables, answered with Polars, which `make setup` installs.

    python examples/three_questions.py                # asks the tables of .tickhouse
    python examples/three_questions.py OTHER_HOME     # or of another home, or any folder or URI with the tables

1. A price far from its mean of 30 seconds: does it turn back first, or go on?
2. Does it take longer to a higher or to a lower price, in calm and in rough times?
3. How much of the data came late or twice, and where are holes in it?

Each answer is a small table and one sentence. Where there is too little to go by, the sentence says so.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from deltalake import DeltaTable

try:
    import polars as pl
except ModuleNotFoundError:
    sys.exit("this script asks with Polars, which `make up` does not install: run `make setup` once, then this again")

TABLES = ("prices", "moving_stats", "zscores", "higher", "lower")
WITHIN_SECONDS = 20.0
"""How far ahead `higher` and `lower` look; exactly this stands for: no such price."""
FAR = 3.0
ENOUGH = 30
"""Fewer independent cases than these prove nothing."""
LATENESS_SECONDS = 10
HOLE_SECONDS = 5


def table(lakehouse: str, name: str) -> pl.LazyFrame:
    """One of the tables; only the columns that a question needs are read."""
    return pl.scan_delta(f"{lakehouse}/{name}")


def in_window(column: str, window: str, field: str) -> pl.Expr:
    """The value that an array such as `z_scores` has for a window."""
    entries = pl.col(column).list.eval(pl.element().filter(pl.element().struct.field("window") == window))
    return entries.list.first().struct.field(field)


def turning_back(lakehouse: str) -> tuple[pl.DataFrame, str]:
    """How often a tick's price first moves towards its mean, by how far it is from the mean of 30 s.

    Above its mean a price turns back when a strictly lower one comes before a strictly higher one, within 20 s; below
    it is the other way round. Ticks of the same move are not independent: an episode is a stretch beyond the limit
    that begins at least 20 s after the last one's beginning.
    """
    tick = ["symbol", "timestamp"]
    waits = table(lakehouse, "higher").join(table(lakehouse, "lower"), on=tick).drop("date", "date_right")
    scores = table(lakehouse, "zscores").select(*tick, z=in_window("z_scores", "30s", "zscore_price"))
    up, down = pl.col("higher_window"), pl.col("lower_window")
    back = pl.when(pl.col("z") > 0).then(down).otherwise(up)
    on = pl.when(pl.col("z") > 0).then(up).otherwise(down)
    ticks = (
        scores.drop_nulls("z")
        .filter(pl.col("z") != 0)
        .join(waits, on=tick)
        .with_columns(back=back, on=on, distance=pl.col("z").abs())
        .with_columns(
            group=pl.when(pl.col("distance") > FAR)
            .then(pl.lit(f"|z| > {FAR:g}"))
            .when(pl.col("distance") > 1)
            .then(pl.lit(f"1 < |z| <= {FAR:g}"))
            .otherwise(pl.lit("|z| <= 1"))
        )
        .sort(tick)
        .collect()
    )
    answer = (
        ticks.group_by("group")
        .agg(
            ticks=pl.len(),
            furthest=pl.col("distance").max(),
            turned_back=(pl.col("back") < pl.col("on")).sum(),
            went_on=(pl.col("on") < pl.col("back")).sum(),
            neither=(pl.col("on") == pl.col("back")).sum(),
        )
        .with_columns(share_turned_back=pl.col("turned_back") / pl.col("ticks"))
        .sort("furthest", descending=True)
        .drop("furthest")
    )
    found = {row["group"]: row for row in answer.to_dicts()}
    far = found.get(f"|z| > {FAR:g}")
    number = episodes(ticks.filter(pl.col("distance") > FAR))
    if far is None or number < ENOUGH:
        return answer, (
            f"Too little data: |z| > {FAR:g} at 30 s occurred in {number} separate episodes "
            f"({far['ticks'] if far else 0} ticks); at least {ENOUGH} are needed."
        )
    near = found.get("|z| <= 1")
    usual = f", against {near['share_turned_back']:.0%} of the {near['ticks']:,} ticks with |z| <= 1" if near else ""
    return answer, (
        f"Of {far['ticks']:,} ticks with |z| > {FAR:g} at 30 s, in {number} separate episodes, "
        f"{far['turned_back']:,} ({far['share_turned_back']:.0%}) were followed by a reversal within "
        f"{WITHIN_SECONDS:g} s{usual}."
    )


def episodes(ticks: pl.DataFrame) -> int:
    """How many stretches there are whose beginnings are at least 20 s apart; `ticks` by symbol and time."""
    count, began = 0, None
    for symbol, time in ticks.select("symbol", "timestamp").iter_rows():
        if began is None or began[0] != symbol or (time - began[1]).total_seconds() >= WITHIN_SECONDS:
            count, began = count + 1, (symbol, time)
    return count


def waits_by_volatility(lakehouse: str) -> tuple[pl.DataFrame, str]:
    """Seconds to the next higher and lower price in the calmest, middle and roughest third of a symbol's ticks.

    Volatility is the standard deviation of 5 m relative to the mean. Thirds are taken per symbol.
    """
    tick = ["symbol", "timestamp"]
    relative = in_window("stats", "5m", "std_price") / in_window("stats", "5m", "avg_price")
    rank = pl.col("volatility").rank("ordinal").over("symbol") / pl.len().over("symbol")
    ticks = (
        table(lakehouse, "moving_stats")
        .select(*tick, volatility=relative)
        .drop_nulls("volatility")
        .with_columns(third=pl.when(rank <= 1 / 3).then(0).when(rank <= 2 / 3).then(1).otherwise(2))
        .join(table(lakehouse, "higher").drop("date"), on=tick)
        .join(table(lakehouse, "lower").drop("date"), on=tick)
        .collect()
    )
    up, down = pl.col("higher_window"), pl.col("lower_window")
    answer = (
        ticks.group_by("third")
        .agg(
            ticks=pl.len(),
            volatility=pl.col("volatility").median(),
            seconds_to_higher=up.mean(),
            seconds_to_lower=down.mean(),
            never_higher=(up == WITHIN_SECONDS).mean(),
            never_lower=(down == WITHIN_SECONDS).mean(),
        )
        .sort("third")
        .with_columns(
            times=pl.col("third").replace_strict({0: "calm", 1: "middling", 2: "rough"}, return_dtype=pl.String)
        )
        .select("times", "ticks", pl.exclude("times", "ticks", "third"))
    )
    found = {row["times"]: row for row in answer.to_dicts()}
    independent = episodes(ticks.sort(tick))
    if len(found) < 3 or independent < 3 * ENOUGH:
        return answer, (
            f"Too little data: {ticks.height:,} ticks in {independent} stretches of {WITHIN_SECONDS:g} s; "
            f"at least {3 * ENOUGH} are needed."
        )
    calm, rough = found["calm"], found["rough"]
    return answer, (
        f"In calm times a higher price took {calm['seconds_to_higher']:.1f} s and a lower one "
        f"{calm['seconds_to_lower']:.1f} s on average ({calm['ticks']:,} ticks), in rough times "
        f"{rough['seconds_to_higher']:.1f} s and {rough['seconds_to_lower']:.1f} s ({rough['ticks']:,} ticks); "
        f"no such price within {WITHIN_SECONDS:g} s counts as {WITHIN_SECONDS:g} s."
    )


def lateness(lakehouse: str) -> tuple[pl.DataFrame, str]:
    """Per symbol: messages, how many are late or repeated by the pipeline's own rule, and the holes in its ticks.

    A tick is late when it lies more than 10 s below the largest timestamp before it, in offset order; of two on-time
    ticks with one timestamp the second is a repetition.
    """
    reach = pl.col("timestamp").cum_max().shift(1).over("symbol")
    messages = (
        table(lakehouse, "prices")
        .select("symbol", "timestamp", "offset", "partition", "ingested_at")
        .sort("offset", "partition")
        .with_columns(late=(pl.col("timestamp") < reach - pl.duration(seconds=LATENESS_SECONDS)).fill_null(value=False))
        .collect()
    )
    on_time = messages.filter(~pl.col("late"))
    ticks = on_time.unique(["symbol", "timestamp"]).sort("symbol", "timestamp")
    step = pl.col("timestamp").diff()
    answer = (
        messages.group_by("symbol")
        .agg(
            messages=pl.len(),
            late=pl.col("late").sum(),
            seconds_to_arrival=(pl.col("ingested_at") - pl.col("timestamp")).dt.total_milliseconds().median() / 1000,
        )
        .join(
            ticks.group_by("symbol").agg(
                ticks=pl.len(),
                holes=(step > pl.duration(seconds=HOLE_SECONDS)).sum(),
                longest_hole_seconds=step.dt.total_milliseconds().max() / 1000,
            ),
            on="symbol",
        )
        .with_columns(repeated=pl.col("messages") - pl.col("late") - pl.col("ticks"))
        .select(
            "symbol", "messages", "ticks", "late", "repeated", "seconds_to_arrival", "holes", "longest_hole_seconds"
        )
        .sort("symbol")
    )
    count, late, repeated, holes = (int(answer[name].sum()) for name in ("messages", "late", "repeated", "holes"))
    if count < ENOUGH:
        return answer, f"Too little data: {count} messages; at least {ENOUGH} are needed."
    return answer, (
        f"Of {count:,} messages {late:,} ({late / count:.2%}) came more than {LATENESS_SECONDS} s late and "
        f"{repeated:,} ({repeated / count:.2%}) repeated a tick; {holes:,} times there was none for more than "
        f"{HOLE_SECONDS} s."
    )


QUESTIONS = {
    "A price far from its mean of 30 s: does it turn back first, or go on?": turning_back,
    "Does a higher or a lower price take longer, in calm and in rough times?": waits_by_volatility,
    "How much of the data came late or twice, and where are holes in it?": lateness,
}


def lakehouse_of(place: str) -> str:
    """The folder of the tables: that of a home, or the place itself."""
    return str(Path(place) / "lakehouse") if (Path(place) / "lakehouse").is_dir() else place.rstrip("/")


def main() -> None:
    """Ask and print."""
    parser = argparse.ArgumentParser(description="Three questions to the tables of a home.")
    parser.add_argument("home", nargs="?", default=".tickhouse", help="the home, or a folder or URI with the tables")
    lakehouse = lakehouse_of(parser.parse_args().home)
    if not all(DeltaTable.is_deltatable(f"{lakehouse}/{name}") for name in TABLES):
        sys.exit(f"there are no tables under {lakehouse} yet: `tickhouse up` makes them within a minute")
    with pl.Config(tbl_hide_column_data_types=True, tbl_hide_dataframe_shape=True, tbl_cols=-1, tbl_width_chars=120):
        for number, (question, ask) in enumerate(QUESTIONS.items(), start=1):
            answer, sentence = ask(lakehouse)
            print(f"{number}. {question}", answer, sentence, sep="\n", end="\n\n")


if __name__ == "__main__":
    main()
