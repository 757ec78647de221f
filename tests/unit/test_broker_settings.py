"""Which settings of brokers are warned of."""

from __future__ import annotations

import pytest

from tickhouse.kafka.broker_settings import _of_broker, _of_topic


@pytest.mark.parametrize(
    ("minutes", "said"),
    [
        ("10080", "stopped for more than 7 days has to be rebuilt"),
        ("60", "Broker 3 forgets after 60 minutes"),
        ("43200", None),
        (None, None),
    ],
)
def test_how_long_offsets_are_kept(minutes: str | None, said: str | None) -> None:
    told = _of_broker("3", {} if minutes is None else {"offsets.retention.minutes": minutes})
    assert told == [] if said is None else said in told[0]


@pytest.mark.parametrize(("limit", "warned"), [(str(2**63 - 1), True), ("3600000", False), (None, False)])
def test_how_far_ahead_records_may_be(limit: str | None, warned: bool) -> None:
    told = _of_topic({} if limit is None else {"message.timestamp.after.max.ms": limit})
    assert bool(told) is warned
    assert not warned or "message.timestamp.after.max.ms to 3600000" in told[0]
