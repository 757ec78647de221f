"""`python -m orchestration.container.init`, as a deployment without `tickhouse up` runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient

from orchestration.local import processes
from orchestration.settings import PROJECT_ROOT, read_endpoints
from tickhouse.contract.topology import JOBS, TOPICS

pytestmark = pytest.mark.integration


def run(home: Path, bootstrap: str) -> subprocess.CompletedProcess[str]:
    variables = dict(os.environ) | {"TICKHOUSE_HOME": str(home), "TICKHOUSE_KAFKA_BOOTSTRAP": bootstrap}
    command = [sys.executable, "-m", "orchestration.container.init"]
    return subprocess.run(command, env=variables, cwd=PROJECT_ROOT, capture_output=True, text=True, check=False)


def test_it_makes_topics_and_wants_the_streams_and_can_be_repeated(home: Path, broker: str) -> None:
    for _ in range(2):
        assert run(home, broker).returncode == 0
        topics = AdminClient({"bootstrap.servers": broker}).list_topics(timeout=10).topics
        assert {len(topics[name].partitions) for name in TOPICS} == {4}
        assert {processes.get_wanted(home, name) for name in JOBS} == {"running"}
        endpoints = read_endpoints(home)
        assert endpoints is not None
        assert endpoints.kafka_bootstrap == broker


def test_a_broker_that_is_away_is_told(home: Path) -> None:
    result = run(home, "127.0.0.1:1")
    assert result.returncode == 1
    assert "is TICKHOUSE_KAFKA_BOOTSTRAP right?" in result.stderr
    assert "Traceback" not in result.stderr
    assert {processes.get_wanted(home, name) for name in JOBS} == {"stopped"}
