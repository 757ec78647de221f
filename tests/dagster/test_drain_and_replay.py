"""The jobs that drain the streams and that send a recording, as far as they go without Spark."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from pymongo import MongoClient

from orchestration.defs import drain, replay
from orchestration.defs.resources import MongoResource, StreamsResource, TopicsResource
from orchestration.local import processes
from orchestration.serving.mongo import DATABASE, RECORDS_DATABASE, Document
from orchestration.supervision.lag import Topics
from tests.dagster.conftest import definitions
from tests.zscore_tables import append, rows
from tickhouse.contract.topology import JOBS, TOPICS


class Counted(Topics):
    """Topics with so many messages in the first, without a broker."""

    def __init__(self, ticks: int) -> None:
        """No connection."""
        self._ticks = ticks

    def end_offsets(self, topics: Any) -> dict[str, dict[int, int]]:
        return {topic: {0: self._ticks if topic == TOPICS[0] else 0} for topic in topics}


class CountedResource(TopicsResource):
    ticks: int = 0

    def get(self) -> Topics:
        return Counted(self.ticks)


def run(
    loaded: dg.Definitions, instance: dg.DagsterInstance, job: str, op: str, **config: Any
) -> tuple[dg.ExecuteInProcessResult, str]:
    """Run a job; the result, and its log with the reason of a failure."""
    result = loaded.resolve_job_def(job).execute_in_process(
        instance=instance, run_config={"ops": {op: {"config": config}}}, raise_on_error=False
    )
    said = [entry.user_message for entry in instance.all_logs(result.run_id)]
    said += [event.step_failure_data.error_display_string for event in result.all_events if event.is_step_failure]
    return result, "\n".join(said)


def alive(home: Path) -> set[str]:
    found = {name: processes.recorded(home, name) for name in JOBS}
    return {name for name, process in found.items() if process is not None and processes.alive(process)}


def launched(home: Path, instance: dg.DagsterInstance, **overrides: Any) -> dg.Definitions:
    loaded = definitions(home, **overrides)
    assert loaded.resolve_job_def("launch_streams").execute_in_process(instance=instance).success
    assert alive(home) == set(JOBS)
    return loaded


@pytest.mark.integration
def test_streams_are_stopped_once_all_has_gone_through(
    stand_in_home: Path, instance: dg.DagsterInstance, mongo_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drain, "_TELL_SECONDS", 0.0)
    with MongoClient[Document](mongo_uri) as client:
        for database in (DATABASE, RECORDS_DATABASE):
            client.drop_database(database)
    append(stand_in_home / "lakehouse", rows(range(12)))
    mongo = MongoResource(home=str(stand_in_home), mongo_uri=mongo_uri)
    topics = CountedResource(home=str(stand_in_home))
    loaded = launched(stand_in_home, instance, mongo=mongo, topics=topics)

    result, said = run(loaded, instance, "drain_streams", "drain", timeout_seconds=1)
    assert not result.success
    assert "not everything went through in 1 s: collection btc-price-zscore-30s is not at version 0" in said
    assert f"left running: {', '.join(JOBS)}" in said
    assert alive(stand_in_home) == set(JOBS)

    assert loaded.resolve_job_def("load_mongodb").execute_in_process(instance=instance).success
    result, said = run(loaded, instance, "drain_streams", "drain")
    assert result.success, said
    assert "all that was in the topics is processed, saved and loaded" in said
    assert "moving: stopped, no process is left, wanted stopped; log " in said
    assert alive(stand_in_home) == set()


def test_what_is_away_is_told(stand_in_home: Path, instance: dg.DagsterInstance) -> None:
    loaded = launched(stand_in_home, instance, topics=CountedResource(home=str(stand_in_home), ticks=9))
    result, said = run(loaded, instance, "drain_streams", "drain", timeout_seconds=0.1)
    assert not result.success
    assert "MongoDB does not answer" in said
    assert alive(stand_in_home) == set(JOBS)


def test_a_stopped_stream_cannot_be_drained(stand_in_home: Path, instance: dg.DagsterInstance) -> None:
    result, said = run(definitions(stand_in_home), instance, "drain_streams", "drain")
    assert not result.success
    assert "prices, moving, zscore, trend would never get there, being stopped: launch_streams first" in said


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"file": "/nowhere/ticks.jsonl"}, "there is no file /nowhere/ticks.jsonl on the machine that runs the stack"),
        ({"file": __file__, "speed": "fast"}, "TICKHOUSE_SPEED='fast': is 1, a factor such as 10, or max"),
    ],
)
def test_a_replay_that_cannot_be_is_refused(
    stand_in_home: Path, instance: dg.DagsterInstance, config: dict[str, Any], reason: str
) -> None:
    result, said = run(definitions(stand_in_home), instance, "replay", "send_recording", **config)
    assert not result.success
    assert reason in said
    assert not (stand_in_home / "replay").exists(), "nothing was started"


@pytest.mark.integration
def test_a_recording_is_sent_and_the_log_tells_how_far(
    stand_in_home: Path, instance: dg.DagsterInstance, broker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from orchestration.local.broker import create_topics

    monkeypatch.setattr(replay, "_TELL_SECONDS", 0.0)
    create_topics(broker, TOPICS)
    recording = stand_in_home / "ticks.jsonl"
    moments = [f"2025-05-08T12:00:{second:02}.000Z" for second in range(30)]
    lines = [json.dumps({"symbol": "REPLAYUSDT", "price": 5, "timestamp": moment}) for moment in moments]
    recording.write_text("\n".join(lines) + "\n")
    before = Topics(broker).end_offsets(TOPICS[:1])[TOPICS[0]]
    streams = StreamsResource(home=str(stand_in_home), kafka_bootstrap=broker)
    loaded = definitions(stand_in_home, streams=streams)
    result, said = run(loaded, instance, "replay", "send_recording", file=str(recording))
    assert result.success, said
    assert (
        f"{recording} (JSON lines): 30 ticks of REPLAYUSDT, from 2025-05-08T12:00:00.000Z to 2025-05-08T12:00:29"
        in said
    )
    assert f"30 messages of {recording} are delivered: 20 with results; 0 late" in said
    assert "10 wait for later ticks" in said
    assert "nothing is left running" in said
    assert "acknowledged, up to" in said
    after = Topics(broker).end_offsets(TOPICS[:1])[TOPICS[0]]
    assert sum(after.values()) - sum(before.values()) >= 30


def test_two_recordings_are_not_sent_at_once(stand_in_home: Path, instance: dg.DagsterInstance) -> None:
    holder = (
        "import sys, fcntl, time; f = open(sys.argv[1], 'ab'); fcntl.lockf(f, 2); print(flush=True); time.sleep(60)"
    )
    lock = stand_in_home / "replay" / "replay.lock"
    lock.parent.mkdir()
    with subprocess.Popen([sys.executable, "-c", holder, str(lock)], stdout=subprocess.PIPE) as other:
        try:
            assert other.stdout is not None and other.stdout.readline()
            result, said = run(definitions(stand_in_home), instance, "replay", "send_recording", file=__file__)
        finally:
            other.kill()
    assert not result.success
    assert "another recording is being sent" in said
