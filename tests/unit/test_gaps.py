"""What is gone of a topic, and where a query goes on past it."""

from __future__ import annotations

import pytest

from spark_jobs.checkpoints.gaps import Gap, find_gaps, past, refusal
from tickhouse.kafka.topics import Extent, Topic

TICKS = "btc-price"


def topic(*extents: tuple[int, int], topic_id: str = "id") -> dict[str, Topic]:
    return {TICKS: Topic(topic_id, {number: Extent(*extent) for number, extent in enumerate(extents)})}


@pytest.mark.parametrize(
    ("wanted", "planned", "found", "gaps", "moved", "moved_plan"),
    [
        pytest.param({0: 5}, None, topic((0, 9)), [], {0: 5}, None, id="all is there"),
        pytest.param({0: 9}, None, topic((9, 9)), [], {0: 9}, None, id="all is read, and gone: no loss"),
        pytest.param({0: 0}, {0: 0}, topic((0, 0)), [], {0: 0}, {0: 0}, id="empty"),
        pytest.param(
            {0: 5, 1: 7},
            None,
            topic((6, 9), (7, 9)),
            [Gap(TICKS, 0, 5, 6, "removed by the broker")],
            {0: 6, 1: 7},
            None,
            id="retention ahead of the reader",
        ),
        pytest.param(
            {0: 5},
            {0: 8},
            topic((6, 9)),
            [Gap(TICKS, 0, 5, 6, "removed by the broker")],
            {0: 6},
            {0: 8},
            id="a planned micro-batch keeps what is left of it",
        ),
        pytest.param(
            {0: 5},
            {0: 8},
            topic((9, 9)),
            [Gap(TICKS, 0, 5, 9, "removed by the broker")],
            {0: 9},
            {0: 9},
            id="a planned micro-batch of which nothing is left",
        ),
        pytest.param(
            {0: 5}, None, topic((0, 4)), [Gap(TICKS, 0, 5, 4, "cut off")], {0: 4}, None, id="the end went back"
        ),
        pytest.param(
            {0: 5},
            {0: 8},
            topic((0, 6)),
            [Gap(TICKS, 0, 8, 6, "cut off")],
            {0: 5},
            {0: 6},
            id="the end went back in a planned micro-batch",
        ),
        pytest.param(
            {0: 5, 1: 3},
            {0: 8, 1: 3},
            topic((0, 100), topic_id="other"),
            [Gap(TICKS, 0, 5, 0, "created again"), Gap(TICKS, 1, 3, None, "created again")],
            {0: 0},
            {0: 0},
            id="created again, though its offsets are all there",
        ),
        pytest.param(
            {0: 5},
            None,
            topic((0, 1), (2, 9), topic_id="other"),
            [Gap(TICKS, 0, 5, 0, "created again"), Gap(TICKS, 1, 0, 2, "created again")],
            {0: 0, 1: 2},
            None,
            id="created again with more partitions",
        ),
        pytest.param({0: 5}, None, {}, [Gap(TICKS, 0, 5, None, "deleted")], {}, None, id="deleted"),
    ],
)
def test_gaps(
    wanted: dict[int, int],
    planned: dict[int, int] | None,
    found: dict[str, Topic],
    gaps: list[Gap],
    moved: dict[int, int],
    moved_plan: dict[int, int] | None,
) -> None:
    plan = None if planned is None else {TICKS: planned}
    assert find_gaps({TICKS: wanted}, plan, {TICKS: "id"}, found) == gaps
    assert past({TICKS: wanted}, gaps) == {TICKS: moved}
    if plan is not None:
        assert past(plan, gaps) == {TICKS: moved_plan}
        # Past the gaps, none is left.
        known = {name: state.topic_id for name, state in found.items()}
        assert find_gaps({TICKS: moved}, {TICKS: moved_plan or {}}, known, found) == []


def test_a_topic_whose_id_was_never_noted_is_taken_for_the_same() -> None:
    assert find_gaps({TICKS: {0: 5}}, None, {}, topic((0, 9), topic_id="any")) == []


def test_the_sentence_names_what_is_lost_and_the_way_past_it() -> None:
    gap = Gap(TICKS, 2, 1_200, 5_000, "removed by the broker")
    sentence = str(refusal("moving", "moving", [gap]))
    for part in ("btc-price partition 2", "offset 1200", "5000", "3800 messages", "`tickhouse skip moving`"):
        assert part in sentence
    deleted = str(
        refusal("zscores", "zscore", [Gap("btc-price-zscore", part, 7, None, "deleted") for part in range(9)])
    )
    assert "5 partitions more" in deleted
    assert "create btc-price-zscore again, then `tickhouse skip zscore`" in deleted
