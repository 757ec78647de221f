"""A marker past a gap: it stays where the checkpoint is, so that nothing is repeated or left out."""

from __future__ import annotations

import pytest

from orchestration.supervision.skip_gaps import moved
from spark_jobs.checkpoints.checkpoint import Progress
from spark_jobs.checkpoints.gaps import Gap, past
from tickhouse.kafka.markers import NOTHING_PUBLISHED, Marker, MarkerMismatch, MicroBatch, digest, is_published
from tickhouse.kafka.offsets import Offsets

TICKS = "btc-price"
REMOVED = Gap(TICKS, 0, 10, 14, "removed by the broker")
ALL_REMOVED = Gap(TICKS, 0, 10, 30, "removed by the broker")
CUT = Gap(TICKS, 0, 20, 12, "cut off")
ANEW = Gap(TICKS, 0, 10, 0, "created again")


def at(offset: int) -> Offsets:
    return {TICKS: {0: offset}}


def marker(ends: Offsets | str) -> Marker:
    return NOTHING_PUBLISHED._replace(number=4, ends=ends)


@pytest.mark.parametrize("gap", [REMOVED, ALL_REMOVED, CUT, ANEW], ids=lambda gap: str(gap.reason))
@pytest.mark.parametrize("published", [False, True])
@pytest.mark.parametrize("by_digest", [False, True])
def test_a_planned_micro_batch_stays_published_or_not(gap: Gap, published: bool, by_digest: bool) -> None:
    progress = Progress(3, at(10), at(20))
    ends = at(20) if published else at(10)
    found = moved(marker(digest(ends) if by_digest else ends), progress, [gap])
    assert found == moved(found, progress, [gap]), "again, after a kill in the middle"
    replanned = MicroBatch(4, past(at(10), [gap]), past(at(20), [gap]))
    # Where nothing is left of it there is nothing to publish.
    assert is_published(found, replanned) is (published or replanned.first == replanned.ends)
    if published or replanned.first == replanned.ends:
        assert not is_published(found, MicroBatch(5, replanned.ends, at(99)))


def test_a_marker_ahead_of_its_checkpoint_stays_ahead() -> None:
    assert moved(marker(at(50)), Progress(3, at(10), None), [REMOVED]) == marker(at(50))
    assert moved(NOTHING_PUBLISHED, Progress(-1, {}, at(20)), [REMOVED]) == NOTHING_PUBLISHED


@pytest.mark.parametrize("found", [None, marker(at(9)), marker(at(15)), marker(digest(at(9)))])
def test_one_that_does_not_suit_is_not_moved(found: Marker | None) -> None:
    with pytest.raises(MarkerMismatch):
        moved(found, Progress(3, at(10), at(20)), [REMOVED])
