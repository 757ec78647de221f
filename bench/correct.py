"""What share of the contract's results a contestant gives right, on ticks out of order, late and repeated."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

from bench.rates import rounded, share
from bench.systems import Contestant
from bench.testbed import FAILURES, Ground, last_words, stop_all
from orchestration.local import processes
from tests.reference.acceptance import read
from tests.reference.compare import judge_scores, judge_seconds, judge_stats
from tests.reference.forms import scores_value, seconds_value, stats_value, topic_results
from tests.reference.model import Expected, evaluate, keyed
from tests.reference.readers import read_system
from tests.reference.report import Tally, tally
from tests.reference.snapshot import Snapshot
from tests.reference.stream import Shares, disturb, random_walks
from tickhouse.contract.names import HIGHER_TOPIC, LOWER_TOPIC, MOVING_TOPIC, ZSCORE_TOPIC

SYMBOLS = ("ALPHA", "BETA", "GAMMA", "DELTA")
_QUIET_SECONDS = 12.0
_COMPLETE_SECONDS = 3.0
_MOST_SECONDS = 150.0
_LOOK_SECONDS = 1.0
_ANY_TIME = 2**43


def lines(seed: int, ticks: int) -> list[tuple[None, bytes, bytes]]:
    """Partition (the key's own), key and value of the messages: all of them ticks in the producer's own spelling.

    Half of them arrive out of order, some twice, some too late, with gaps longer than a window; one symbol in two
    arrives two minutes behind the others; prices from 0.00000001 to 9,999,999,999.99999999.
    """
    walks = random_walks(seed, SYMBOLS, ticks)
    disturbed = disturb(walks, seed, Shares(malformed=0, spelled=0))
    return [(None, read(line.value).symbol.encode(), line.value) for line in disturbed]


def statistics_owed(messages: list[tuple[None, bytes, bytes]]) -> int:
    """How many of these messages have final statistics."""
    return len(evaluate(keyed(0, place, _ANY_TIME, value) for place, (_, _, value) in enumerate(messages)).stats)


def correctness(ground: Ground, contestant: Contestant, owed: int, tell: Callable[[str], None]) -> dict[str, Any]:
    """Let a contestant work through what is on the price topic, and judge its results.

    `owed` ticks have statistics: with as many results it is given a moment more, else it has to be quiet for a while.
    """
    ground.renew()
    home = ground.new_home(contestant.name)
    try:
        running = contestant.start(ground, home)
        _wait_until_quiet(ground, contestant, running, owed, tell)
        ended = not all(processes.alive(process) for process in running)
        snapshot = read_system(ground.bootstrap, None, None)
    except FAILURES as error:
        return {"failure": f"{type(error).__name__}: {error}"[:600], "share": 0.0, "unexpected": 0}
    finally:
        stop_all(home)
    judged = judge(snapshot, contestant.outputs)
    return {**judged, **({"failure": f"ended: {last_words(running)}"} if ended else {})}


def _wait_until_quiet(
    ground: Ground, contestant: Contestant, running: list[processes.Process], owed: int, tell: Callable[[str], None]
) -> None:
    began = changed = time.monotonic()
    before: dict[str, int] = {}
    while time.monotonic() - began < _MOST_SECONDS and all(processes.alive(process) for process in running):
        now = ground.readable(contestant.outputs)
        if now != before:
            before, changed = now, time.monotonic()
        # Before the first results there may be much to start, afterwards there is a pause at most.
        complete = contestant.per_tick and min(now.values()) >= owed
        if any(now.values()) and time.monotonic() - changed > (_COMPLETE_SECONDS if complete else _QUIET_SECONDS):
            return
        tell(f"{min(now.values()):,} results")
        time.sleep(_LOOK_SECONDS)


def judge(snapshot: Snapshot, outputs: tuple[str, ...]) -> dict[str, Any]:
    """The share of owed results that are there and right, over these topics and for each, and how many are there that
    are not owed or there again."""
    expected = evaluate(snapshot.messages)
    verdicts = {topic: _verdict(topic, snapshot, expected) for topic in outputs}
    tallies = [verdict.tally for verdict in verdicts.values()]
    owed = sum(one.expected for one in tallies)
    kinds = {kind: sum(one.counts[kind] for one in tallies) for kind in ("missing", "wrong", "unexpected", "duplicate")}
    return {
        "share": share(sum(verdict.right for verdict in verdicts.values()), owed),
        "shares": {topic: rounded(share(verdict.right, verdict.tally.expected)) for topic, verdict in verdicts.items()},
        "owed": owed,
        **kinds,
        "examples": {
            kind: example[:200]
            for kind in kinds
            if (example := next((one.examples[kind][0] for one in tallies if one.examples[kind]), None))
        },
    }


class _Verdict(NamedTuple):
    tally: Tally
    right: int


def _verdict(topic: str, snapshot: Snapshot, expected: Expected) -> _Verdict:
    right = 0

    def counted(fault: str | None) -> str | None:
        nonlocal right
        right += fault is None
        return fault

    records = snapshot.topics.get(topic, [])
    if topic == MOVING_TOPIC:
        found = topic_results(records, "stats", stats_value)
        verdict = tally(topic, expected.stats, found, lambda _, owed, value: counted(judge_stats(owed, value)))
    elif topic == ZSCORE_TOPIC:
        found = topic_results(records, "z_scores", scores_value)
        units = expected.units
        verdict = tally(
            topic, expected.stats, found, lambda name, owed, value: counted(judge_scores(units[name], owed, value))
        )
    else:
        member, passages = {
            HIGHER_TOPIC: ("higher_window", expected.higher),
            LOWER_TOPIC: ("lower_window", expected.lower),
        }[topic]
        found = topic_results(records, member, seconds_value)
        verdict = tally(topic, passages, found, lambda _, owed, value: counted(judge_seconds(owed, value)))
    return _Verdict(verdict, right)
