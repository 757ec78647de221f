"""The arithmetic of the comparison: rates from what was seen, delays in a few numbers, ratios."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np


class Seen(NamedTuple):
    """What was seen at a moment: ticks whose results can be read, and the CPU seconds used until then."""

    seconds: float
    ticks: int
    cpu_seconds: float = 0.0


class Rate(NamedTuple):
    """A rate and what it comes from."""

    per_second: float
    ticks: int
    seconds: float
    cpu_seconds: float

    @property
    def cpu_seconds_per_million(self) -> float:
        """CPU seconds that a million ticks take."""
        return self.cpu_seconds / self.ticks * 1e6


def sustained(seen: Sequence[Seen], warm_up_seconds: float) -> Rate | None:
    """The rate from the first results after the warm-up to the last ones; None with fewer than two arrivals of results.

    The warm-up begins with the first results. Results come in batches, so only the moments at which some arrived count:
    from one such moment to another there are whole batches and the time that they took. Where all is done before the
    warm-up is over, nothing is left out but the first batch.
    """
    most = accumulate((one.ticks for one in seen), max)
    # A count may fall for a moment, when a broker has just made its topics anew: what was seen before is no arrival.
    arrivals = [now for before, now in zip(most, seen[1:], strict=False) if now.ticks > before]
    if len(arrivals) < 2:
        return None
    warm = [one for one in arrivals[:-1] if one.seconds >= arrivals[0].seconds + warm_up_seconds]
    first, last = (warm or arrivals)[0], arrivals[-1]
    ticks, seconds = last.ticks - first.ticks, last.seconds - first.seconds
    return Rate(ticks / seconds, ticks, seconds, last.cpu_seconds - first.cpu_seconds)


def summary(delays: Sequence[float]) -> dict[str, float]:
    """Number, median, 99th percentile and largest of delays in seconds; the number alone when there are none."""
    if not delays:
        return {"results": 0}
    values = np.asarray(delays)
    return {
        "results": len(values),
        "p50": float(np.percentile(values, 50)),
        "p99": float(np.percentile(values, 99)),
        "max": float(values.max()),
    }


def share(right: int, owed: int) -> float:
    """What part of the results that were owed is right; 0 when none were owed."""
    return right / owed if owed else 0.0


def is_correct(result: Mapping[str, Any]) -> bool:
    """Whether a contestant gave all results that were owed, right, and none beside them."""
    correctness = result.get("correctness") or {}
    return correctness.get("share") == 1.0 and not correctness.get("unexpected") and not correctness.get("duplicate")


def best_correct(results: Mapping[str, Mapping[str, Any]], names: Sequence[str], scenario: str) -> str | None:
    """Of these contestants the fastest correct one in a drain scenario; None when there is none."""
    rates = {
        name: rate
        for name in names
        if is_correct(results.get(name, {})) and (rate := rate_of(results[name], scenario)) is not None
    }
    return max(rates, key=lambda name: rates[name]) if rates else None


def rate_of(result: Mapping[str, Any], scenario: str) -> float | None:
    """Ticks per second of a contestant in a drain scenario; None where it was not measured."""
    rate = result.get("drain", {}).get(scenario, {}).get("rate")
    return None if rate is None else float(rate)


def ratio(one: float | None, other: float | None) -> float | None:
    """How many times the other; None where either is not known or the other is 0."""
    return one / other if one is not None and other else None


def rounded(number: float | None, digits: int = 3) -> float | None:
    """To significant digits, for people and for files; None stays None."""
    if number is None or number == 0 or not math.isfinite(number):
        return number
    return round(number, digits - 1 - math.floor(math.log10(abs(number))))
