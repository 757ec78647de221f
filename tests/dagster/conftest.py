"""What the Dagster tests share: tables written without Spark, resources for a temporary home, an ephemeral instance."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import dagster as dg
import pytest
from dagster._core.remote_origin import (
    ManagedGrpcPythonEnvCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin

from orchestration.definitions import build_definitions
from orchestration.defs.resources import MongoResource, StreamsResource, TopicsResource
from orchestration.local import processes
from orchestration.settings import OrchestrationSettings
from tickhouse.contract.topology import JOBS

STAND_IN = [sys.executable, str(Path(__file__).with_name("stand_in.py"))]
NOWHERE = "127.0.0.1:1"
"""An address at which nothing listens."""


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


@pytest.fixture
def stand_in_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home whose streams are stand-ins; none is left running."""
    for name in ("KAFKA_BOOTSTRAP", "MONGO_URI", "LAKEHOUSE", "CHECKPOINTS", "HOME"):
        monkeypatch.delenv(f"TICKHOUSE_{name}", raising=False)
    processes.run_folder(tmp_path)
    yield tmp_path
    for name in JOBS:
        process = processes.recorded(tmp_path, name)
        if process is not None:
            processes.stop(process, 5)


def definitions(home: Path, **overrides: Any) -> dg.Definitions:
    """The definitions for a home with stand-ins for streams and nothing behind the addresses, unless overridden."""
    resources = {
        "streams": StreamsResource(home=str(home), command=STAND_IN),
        "topics": TopicsResource(home=str(home), kafka_bootstrap=NOWHERE, timeout_seconds=0.2),
        "mongo": MongoResource(home=str(home), mongo_uri=f"mongodb://{NOWHERE}/", timeout_seconds=0.2),
    }
    return build_definitions(OrchestrationSettings(home=home), resources | overrides)


def make_run(
    instance: dg.DagsterInstance, job: dg.JobDefinition, status: dg.DagsterRunStatus, **given: Any
) -> dg.DagsterRun:
    """A run of a job in the given status."""
    if status != dg.DagsterRunStatus.QUEUED:
        return instance.create_run_for_job(job, status=status, **given)
    # What a run in the queue must say of where it came from: the queue reads it, these tests do not.
    origin = RemoteJobOrigin(
        RemoteRepositoryOrigin(
            ManagedGrpcPythonEnvCodeLocationOrigin(LoadableTargetOrigin(), "tickhouse"), "tickhouse"
        ),
        job.name,
    )
    return instance.create_run_for_job(job, status=status, remote_job_origin=origin, job_code_origin=None, **given)


class RealHome(NamedTuple):
    """Where the real parts of a test are, told as the environment tells them to the code location."""

    kafka_bootstrap: str
    mongo_uri: str
    tools: Path

    def use(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Set the environment."""
        for name in ("LAKEHOUSE", "CHECKPOINTS", "JARS", "HOME"):
            monkeypatch.delenv(f"TICKHOUSE_{name}", raising=False)
        for name, value in self._asdict().items():
            monkeypatch.setenv(f"TICKHOUSE_{name.upper()}", str(value))
