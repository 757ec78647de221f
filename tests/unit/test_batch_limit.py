"""How much a micro-batch has: all that there is, or of each partition the same share."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from spark_jobs.sources.batch_limit import next_ends
from tickhouse.kafka.offsets import Offsets

extents = st.dictionaries(
    st.tuples(st.sampled_from(["a", "b"]), st.integers(0, 3)),
    st.tuples(st.integers(0, 10**6), st.integers(0, 10**6)),
    min_size=1,
)
mosts = st.integers(1, 10**6)


def split(found: dict[tuple[str, int], tuple[int, int]]) -> tuple[Offsets, Offsets]:
    position: Offsets = {}
    ends: Offsets = {}
    for (topic, number), (first, count) in found.items():
        position.setdefault(topic, {})[number] = first
        ends.setdefault(topic, {})[number] = first + count
    return position, ends


def count(position: Offsets, ends: Offsets) -> int:
    return sum(end - position[topic][number] for topic, parts in ends.items() for number, end in parts.items())


def test_a_backlog_is_cut_alike_in_all_partitions() -> None:
    position = {"ticks": {0: 100, 1: 0}, "statistics": {0: 50}}
    ends = {"ticks": {0: 1_100, 1: 2_000}, "statistics": {0: 1_050}}
    assert next_ends(position, ends, 400) == {"ticks": {0: 200, 1: 200}, "statistics": {0: 150}}


def test_a_partition_that_is_new_begins_at_nothing() -> None:
    assert next_ends({"ticks": {0: 7}}, {"ticks": {0: 7, 1: 10}}, 4) == {"ticks": {0: 7, 1: 4}}


def test_without_anything_new_a_position_stays() -> None:
    assert next_ends({"ticks": {0: 7}}, {"ticks": {0: 7}}, 4) == {"ticks": {0: 7}}


def test_what_waits_for_others_is_not_read_long_before_them() -> None:
    position = {"ticks": {0: 0, 1: 0}, "statistics": {0: 0, 1: 0}}
    none = {"ticks": {0: 6_000, 1: 2_000}, "statistics": {0: 0, 1: 0}}
    assert next_ends(position, none, 400, ["statistics"]) == {"ticks": {0: 30, 1: 10}, "statistics": {0: 0, 1: 0}}
    few = {"ticks": {0: 6_000, 1: 2_000}, "statistics": {0: 40, 1: 40}}
    assert next_ends(position, few, 400, ["statistics"]) == {"ticks": {0: 75, 1: 25}, "statistics": {0: 40, 1: 40}}
    all_of_them = {"ticks": {0: 6_000, 1: 2_000}, "statistics": {0: 6_000, 1: 2_000}}
    assert next_ends(position, all_of_them, 400, ["statistics"]) == {
        "ticks": {0: 150, 1: 50},
        "statistics": {0: 150, 1: 50},
    }


def test_what_others_will_never_complete_is_read_all_the_same() -> None:
    position: Offsets = {"ticks": {0: 0}, "statistics": {0: 0}}
    ends = {"ticks": {0: 10_000}, "statistics": {0: 100}}
    for _ in range(1_000):
        position = next_ends(position, ends, 400, ["statistics"])
    assert position == ends


@given(found=extents, most=mosts)
def test_it_goes_on_as_far_as_it_may_and_no_further(found: dict[tuple[str, int], tuple[int, int]], most: int) -> None:
    position, ends = split(found)
    reached = next_ends(position, ends, most)
    assert all(
        position[topic][number] <= offset <= ends[topic][number]
        for topic, parts in reached.items()
        for number, offset in parts.items()
    )
    there = count(position, ends)
    assert min(most, there) <= count(position, reached) < min(most, there) + len(found) + 1
    if there <= most:
        assert reached == ends


@given(found=extents, most=mosts, awaited=st.lists(st.sampled_from(["a", "b"])))
def test_none_that_has_news_is_left_out(
    found: dict[tuple[str, int], tuple[int, int]], most: int, awaited: list[str]
) -> None:
    position, ends = split(found)
    reached = next_ends(position, ends, most, awaited)
    for topic, parts in ends.items():
        for number, end in parts.items():
            assert (reached[topic][number] > position[topic][number]) == (end > position[topic][number])
