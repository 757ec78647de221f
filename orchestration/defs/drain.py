"""The job that lets everything in the topics go through, then stops the streams.

Run configuration, none needed:

    ops: {drain: {config: {timeout_seconds: 600}}}
"""

import time

import dagster as dg
from pydantic import Field
from pymongo.errors import PyMongoError

from orchestration.defs.resources import LakehouseResource, MongoResource, StreamsResource, TopicsResource
from orchestration.defs.stream_jobs import stop_all
from orchestration.monitoring.drain_progress import Drain
from orchestration.serving.mongo import TABLE, fault
from orchestration.supervision.lag import KafkaAway
from orchestration.supervision.streams import Streams
from tickhouse.contract.topology import JOBS, TOPICS

_LOOK_SECONDS = 1.0
_TELL_SECONDS = 10.0


class DrainConfig(dg.Config):
    """How long to wait."""

    timeout_seconds: float = Field(
        600.0, gt=0, description="After so long the run fails, says what is left, and leaves the streams running."
    )


@dg.op
def drain(
    context: dg.OpExecutionContext,
    config: DrainConfig,
    streams: StreamsResource,
    topics: TopicsResource,
    lakehouse: LakehouseResource,
    mongo: MongoResource,
) -> None:
    """Wait until what is in the topics now is processed, saved and loaded, then stop the streams."""
    processes = streams.get(context.log.info)
    stopped = [name for name in JOBS if not processes.wanted(name)]
    if stopped:
        raise dg.Failure(
            f"{', '.join(stopped)} would never get there, being stopped: launch_streams first", allow_retries=False
        )
    going_through = Drain()
    deadline = time.monotonic() + config.timeout_seconds
    told_at = 0.0
    while reasons := _look(going_through, processes, topics, lakehouse, mongo):
        now = time.monotonic()
        if now > deadline:
            context.log.error("left running: %s", ", ".join(JOBS))
            raise dg.Failure(
                f"not everything went through in {config.timeout_seconds:.0f} s: {'; '.join(reasons)}",
                allow_retries=False,
            )
        if now - told_at >= _TELL_SECONDS:
            told_at = now
            context.log.info("waiting: %s", "; ".join(reasons))
        time.sleep(_LOOK_SECONDS)
    context.log.info("all that was in the topics is processed, saved and loaded")
    stop_all(context, processes, list(JOBS))


def _look(
    going_through: Drain,
    streams: Streams,
    topics: TopicsResource,
    lakehouse: LakehouseResource,
    mongo: MongoResource,
) -> list[str]:
    # In this order: the judgement relies on it.
    heartbeats = {name: streams.observe(name).heartbeat for name in JOBS}
    try:
        ends = topics.get().end_offsets(TOPICS)
        version = lakehouse.get().version(TABLE)
        with mongo.open() as store:
            loaded = store.loaded()
    except KafkaAway as error:
        return [str(error)]
    except PyMongoError as error:
        return [f"MongoDB {fault(error)}"]
    return going_through.look(heartbeats, ends, version, loaded)


@dg.job(
    description="Let everything that is in the topics go through (tables and MongoDB included), then stop the streams. "
    "The source is left as it is; what it sends afterwards waits in the topic for the next launch."
)
def drain_streams() -> None:
    """One step: `drain`."""
    drain()
