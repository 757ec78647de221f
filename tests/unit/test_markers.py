"""What a marker says, and what follows from it: the table of cases."""

from __future__ import annotations

import pytest

from tickhouse.contract.topology import COUNTS
from tickhouse.kafka.markers import (
    NOTHING_PUBLISHED,
    Marker,
    MarkerMismatch,
    MicroBatch,
    adopted,
    check_owner,
    digest,
    is_published,
    limited,
    parse,
    stops,
)
from tickhouse.kafka.offsets import Offsets

COUNTED = dict.fromkeys(COUNTS, 7)


def at(*offsets: int) -> Offsets:
    return {"btc-price": dict(enumerate(offsets))}


def marker(ends: Offsets | str | None, number: int = 5) -> Marker:
    return Marker(number, COUNTED, ends)


BATCH = MicroBatch(4, at(10, 20), at(15, 20))
PUBLISHED, OPEN = True, False


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        pytest.param(marker(at(15, 20)), PUBLISHED, id="repeated"),
        pytest.param(marker(at(10, 20)), OPEN, id="next"),
        pytest.param(marker(at(15, 20), number=99), PUBLISHED, id="numbers do not matter"),
        pytest.param(marker(at(30, 21)), PUBLISHED, id="computed again on the way to the marker"),
        pytest.param(marker(digest(at(15, 20))), PUBLISHED, id="repeated, by digest"),
        pytest.param(marker(digest(at(10, 20))), OPEN, id="next, by digest"),
        pytest.param(None, "lost the marker", id="gone"),
        pytest.param(marker(at(12, 20)), "in the middle of the planned", id="planned otherwise"),
        pytest.param(marker(at(20, 19)), "in the middle of the planned", id="neither before nor after"),
        pytest.param(marker(at(9, 20)), "up to .*/0: 9.* goes on from .*/0: 10", id="set back"),
        pytest.param(NOTHING_PUBLISHED, "up to the beginning", id="set back to nothing"),
        pytest.param(marker(digest(at(30, 21))), "neither at the beginning nor at the end", id="other by digest"),
        pytest.param(marker(None), "earlier version", id="the old form, after the new one was noted"),
    ],
)
def test_a_micro_batch_against_the_marker(found: Marker | None, verdict: bool | str) -> None:
    if isinstance(verdict, str):
        with pytest.raises(MarkerMismatch, match=verdict):
            is_published(found, BATCH)
    else:
        assert is_published(found, BATCH) is verdict


def test_the_first_micro_batch() -> None:
    first = MicroBatch(0, {}, at(5, 0))
    assert not is_published(NOTHING_PUBLISHED, first)
    assert is_published(marker(at(5, 0)), first)


def test_a_partition_that_is_added() -> None:
    grown = MicroBatch(5, at(15, 20), at(16, 20, 3))
    assert not is_published(marker(at(15, 20)), grown)
    assert is_published(marker(at(16, 20, 3)), grown)


@pytest.mark.parametrize("ends", [at(15, 20), {}, None, digest(at(1))])
def test_what_is_written_is_read(ends: Offsets | str | None) -> None:
    written = marker(ends)
    assert parse(written.number, written.metadata()) == written


def test_a_position_that_does_not_fit_is_written_as_its_digest() -> None:
    many = at(*range(10**9, 10**9 + 1_000))
    found = parse(5, marker(many).metadata())
    assert found.ends == digest(many)
    assert len(marker(many).metadata()) < 4_000


@pytest.mark.parametrize("metadata", [None, "", "{}", "x", "[1]", '{"late":"x"}'])
def test_what_no_stream_has_written_is_refused(metadata: str | None) -> None:
    with pytest.raises(MarkerMismatch, match="set by somebody else"):
        parse(3, metadata)


DONE, PLANNED = at(10, 20), at(15, 20)


@pytest.mark.parametrize(
    ("found", "planned", "expected"),
    [
        pytest.param([marker(DONE)], None, [], id="at rest"),
        pytest.param([marker(DONE)], PLANNED, [], id="begun, not published"),
        pytest.param([marker(PLANNED)], PLANNED, [], id="published, not recorded"),
        pytest.param([marker(DONE), marker(PLANNED)], PLANNED, [], id="published in part"),
        pytest.param([marker(at(40, 50))], None, [at(40, 50)], id="rolled back"),
        pytest.param([marker(at(40, 50))], PLANNED, [at(40, 50)], id="rolled back to a planned one"),
        pytest.param(
            [marker(at(41, 50)), marker(at(40, 50)), marker(at(41, 50))],
            PLANNED,
            [at(40, 50), at(41, 50)],
            id="rolled back from one published in part",
        ),
        pytest.param([marker(digest(DONE))], PLANNED, [], id="digest"),
        pytest.param([marker(DONE), None], None, "lost", id="one is gone"),
        pytest.param([marker(at(9, 20))], None, "set back", id="behind"),
        pytest.param([marker(at(12, 20))], PLANNED, "not of one history", id="in the middle of what is planned"),
        pytest.param([marker(digest(at(1)))], None, "not of one history", id="rolled back, by digest"),
    ],
)
def test_a_checkpoint_against_its_markers(
    found: list[Marker | None], planned: Offsets | None, expected: list[Offsets] | str
) -> None:
    if isinstance(expected, str):
        with pytest.raises(MarkerMismatch, match=expected):
            stops(found, 3, DONE, planned)
    else:
        assert stops(found, 3, DONE, planned) == expected


@pytest.mark.parametrize(
    ("number", "planned", "expected"),
    [
        pytest.param(4, None, DONE, id="at rest"),
        pytest.param(4, PLANNED, DONE, id="begun, not published"),
        pytest.param(5, PLANNED, PLANNED, id="published, not recorded"),
        pytest.param(2, PLANNED, DONE, id="a partition without results for some time"),
        pytest.param(5, None, "5 of its micro-batches are published, and its checkpoint has done 4", id="rolled back"),
        pytest.param(6, PLANNED, "restored from a copy", id="rolled back further"),
    ],
)
def test_a_marker_of_an_earlier_version_is_taken_over(
    number: int, planned: Offsets | None, expected: Offsets | str
) -> None:
    old = parse(number, marker(None).metadata().replace(',"ends":null', ""))
    assert old == marker(None, number)
    if isinstance(expected, str):
        with pytest.raises(MarkerMismatch, match=expected):
            adopted(old, True, 3, DONE, planned)
    else:
        assert adopted(old, True, 3, DONE, planned) == marker(expected, number)


def test_a_marker_that_an_earlier_version_never_wrote() -> None:
    assert adopted(None, False, -1, {}, None) == NOTHING_PUBLISHED
    assert adopted(None, True, 3, DONE, None) == Marker(4, NOTHING_PUBLISHED.counts, DONE)
    assert adopted(marker(DONE), True, 3, DONE, None) == marker(DONE), "a kill came before it was noted"
    with pytest.raises(MarkerMismatch, match="lost the marker"):
        adopted(None, False, 3, DONE, None)


def test_micro_batches_end_where_the_markers_are() -> None:
    ends, both = at(99, 99), [at(40, 50), at(41, 50)]
    assert limited(at(0, 0), ends, both) == at(40, 50)
    assert limited(at(40, 30), ends, both) == at(40, 50)
    assert limited(at(40, 50), ends, both) == at(41, 50)
    assert limited(at(41, 50), ends, both) == ends
    assert limited(at(0, 0, 7), at(99, 99, 99), both) == at(40, 50, 7), "a partition that came later waits"


def test_a_micro_batch_reaches_its_task() -> None:
    assert MicroBatch.from_json(BATCH.to_json()) == BATCH


def test_topics_are_of_one_checkpoint() -> None:
    check_owner(None, "mine")
    check_owner("mine", "mine")
    with pytest.raises(MarkerMismatch, match="that of the query other, has published to its topics since"):
        check_owner("other", "mine")
