"""What a start says while it waits for z-scores, as a table of situations."""

from __future__ import annotations

from typing import Any

import pytest

from orchestration.monitoring.status import CollectionStatus, ProducerStatus, Status, StreamStatus
from orchestration.stack.readiness import Readiness

SENDING = {"state": "running", "acknowledged": 100}
ENDED = {"state": "ended", "acknowledged": 100}
STREAMS = ("prices", "moving", "zscore", "trend")
AT_WORK: dict[str, dict[str, Any]] = {name: {"state": "running", "output_rows": 0, "lag": 0} for name in STREAMS}
FIRST = "the first z-scores: each follows its price by 10 s, as a late price could change it until then"
STARTING: dict[str, dict[str, Any]] = {name: {"state": "starting"} for name in STREAMS}


def status(
    producer: dict[str, Any] = SENDING,
    streams: dict[str, dict[str, Any]] = AT_WORK,
    documents: int = 0,
    drained: bool = False,
) -> Status:
    return Status(
        source="simulator",
        source_note=None,
        kafka_bootstrap="127.0.0.1:1",
        mongo_uri="mongodb://127.0.0.1:2",
        lakehouse="/nowhere",
        dagster_url=None,
        producer=ProducerStatus.model_validate(producer),
        streams={name: StreamStatus.model_validate(stream) for name, stream in streams.items()},
        load={"btc-price-zscore-1h": CollectionStatus(documents=documents, delta_version=0)},
        services={},
        drained=drained,
        waiting_for=[],
        problems=[],
    )


def zscore(**fields: Any) -> dict[str, dict[str, Any]]:
    return AT_WORK | {"zscore": AT_WORK["zscore"] | fields}


@pytest.mark.parametrize(
    ("seen", "told"),
    [
        (status({"state": "failed", "error": "no such file\nmore"}), "the producer, which has failed: no such file"),
        (status({"state": "waiting"}), "the first price"),
        (status({"state": "waiting", "note": "banned until noon"}), "the first price (banned until noon)"),
        (status(streams=STARTING), "streams prices, moving, zscore, trend to be at work"),
        (status(streams=AT_WORK | {"trend": {"state": "stopped"}}), "stream trend to be at work"),
        (
            status(streams=STARTING | {"trend": {"state": "given_up", "error": "boom\nmore"}}),
            "stream trend, which is given up: boom",
        ),
        (status(), FIRST),
        (status(ENDED, zscore(lag=7)), FIRST),
        (
            status(ENDED),
            "more prices: the recording has ended, and none of its ticks is 10 s older than its last one, so that no "
            "result is final",
        ),
        (
            status(streams=zscore(output_rows=1_500, archive_lag=1_200)),
            "the first z-scores, which are computed by now, to be written to the table",
        ),
        (
            status(streams=zscore(output_rows=1_500, archive_lag=0)),
            "the z-scores in the table to be loaded into MongoDB",
        ),
    ],
)
def test_what_is_waited_for(seen: Status, told: str) -> None:
    assert Readiness(10).judge(seen) == (False, told)


def test_z_scores_of_an_earlier_run_that_are_loaded_now_are_not_taken_for_new_ones() -> None:
    arrival = Readiness(10)
    assert not arrival.judge(status(streams=zscore(state="stopped", output_rows=500), documents=400))[0]
    assert not arrival.judge(status(streams=zscore(output_rows=510), documents=500))[0]
    assert arrival.judge(status(streams=zscore(output_rows=510), documents=501)) == (True, "z-scores are arriving")


def test_a_recording_that_went_through_everything_before_is_not_waited_for() -> None:
    arrived, sentence = Readiness(10).judge(status(ENDED, zscore(output_rows=500), documents=500, drained=True))
    assert arrived
    assert sentence == "the recording has gone through everything: MongoDB has 500 z-scores of each window"
    counts = {"input_rows": 600, "output_rows": 500, "late": 0, "duplicates": 0, "rejects": 0}
    streams = zscore(output_rows=500)
    streams |= {"moving": streams["moving"] | counts}
    _, sentence = Readiness(10).judge(status(ENDED, streams, documents=500, drained=True))
    assert sentence.endswith("500 z-scores of each window, and 100 ticks wait for later ones to be final")
