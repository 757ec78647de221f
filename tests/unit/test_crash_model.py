"""Streams that crash, are set back and lose their markers at every step, by schedules that Hypothesis makes up."""

from __future__ import annotations

import logging
import os
from functools import cache

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.crash_model import CrashingStream, Disaster, input_messages, run
from tests.memory_kafka import Fault

TICKS = 30
EXAMPLES = int(os.environ.get("TICKHOUSE_MODEL_EXAMPLES", "300"))

FAULTS = st.dictionaries(st.integers(0, 60), st.sampled_from(list(Fault)), max_size=8)
DISASTERS = st.lists(
    st.builds(Disaster, st.sampled_from(("rollback", "rebuild", "lose", "set back")), st.integers(0, 30)), max_size=3
)


@cache
def expected(job: str, seed: int) -> dict[tuple[str, str], list[bytes]]:
    """What comes of an input in a single micro-batch."""
    stream = CrashingStream(job, input_messages(seed, TICKS), [TICKS])
    assert stream.live()
    return stream.published()


@settings(max_examples=EXAMPLES, deadline=None)
@given(
    job=st.sampled_from(("moving", "trend")),
    seed=st.integers(0, 9),
    sizes=st.lists(st.integers(0, 9), min_size=1, max_size=4),
    faults=FAULTS,
    delay=st.integers(0, 4),
    disasters=DISASTERS,
)
def test_each_result_is_published_once_whatever_happens(
    job: str, seed: int, sizes: list[int], faults: dict[int, Fault], delay: int, disasters: list[Disaster]
) -> None:
    logging.getLogger("spark_jobs.sinks.kafka").setLevel(logging.ERROR)
    steps = iter(range(10**9))
    stream = CrashingStream(
        job,
        input_messages(seed, TICKS),
        sizes,
        lambda _step: faults.get(next(steps)),
        lambda: delay,
    )
    run(stream, disasters, expected(job, seed))
