"""The whole stack, struck at every kind of failpoint and by the commonest kills, and exact at the end.

`make chaos` is the long form.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.chaos import plan
from tests.chaos.report import Record, passed, summary
from tests.chaos.run import Run
from tests.chaos.victims import Stack
from tests.reference.report import Report, Tally
from tests.reference.stream import disturb, random_walks, write_lines
from tickhouse.contract.topology import JOBS

SEED = int(os.environ.get("SEED", "20251124"))
_SPEED = 1
_TICKS = 3 * 5_000
"""Enough for all faults to fall into the stream, on a slow machine, too: a load has nothing to do after its end."""


def test_the_same_seed_draws_the_same_faults_and_every_kind() -> None:
    drawn = plan.draw(5, 100)
    assert drawn == plan.draw(5, 100) != plan.draw(6, 100)
    assert len(drawn) == 100
    assert {fault.kind for fault in drawn} == set(plan.KINDS)
    assert all(fault.target in plan.KINDS[fault.kind][1] for fault in drawn)


@pytest.mark.parametrize(
    ("target", "recovery", "alone", "in_time"),
    [
        ("load", 59, True, True),
        ("load", 61, True, False),
        ("load", 61, False, True),  # MongoDB may have been away meanwhile
        ("load", None, False, False),
        ("moving", 100, True, True),
    ],
)
def test_a_load_that_was_killed_is_back_in_time(
    target: str, recovery: float | None, alone: bool, in_time: bool
) -> None:
    record = Record(plan.Fault("kill run", target), 0.0, struck=True, recovery=recovery, alone=alone)
    assert passed([record], Report([Tally("topic", 1)], [])) is in_time


@pytest.mark.integration
@pytest.mark.whole_machine
@pytest.mark.timeout(900)
def test_struck_at_every_failpoint_and_exact_at_the_end(home: Path, tools: Path) -> None:
    recording = home.with_name("ticks.jsonl.gz")
    lines = disturb(random_walks(SEED, ("BTCUSDT", "ETHUSDT", "SHIBUSDT"), _TICKS, gaps=0), SEED, lag=5_000)
    write_lines(recording, lines)
    faults = plan.brief(SEED)
    assert {f"failpoint {name}" for name in plan.FAILPOINTS} <= {fault.kind for fault in faults}
    stack = Stack(home, recording)
    try:
        run = Run(stack, faults, SEED, print, str(_SPEED))
        records = run.break_it()
        report = run.verdict(recording)
        counted = {name: stack.status()["streams"][name] for name in JOBS}
    finally:
        stack.close()
    told = f"seed {SEED}\n{summary(records, report)}"
    print(told)
    assert passed(records, report), told
    # What was counted on the way survived as exactly as what was published.
    assert {name: stream["input_rows"] for name, stream in counted.items()} == {
        "prices": len(lines),
        "moving": len(lines),
        "trend": len(lines),
        "zscore": len(lines) + counted["moving"]["output_rows"],
    }
    assert counted["zscore"]["output_rows"] == counted["moving"]["output_rows"]
    for name in ("late", "duplicates", "rejects"):
        assert counted["moving"][name] == counted["zscore"][name] == counted["trend"][name]
    # A failpoint that nobody comes to any more proves nothing.
    assert not [record for record in records if not record.struck], told
