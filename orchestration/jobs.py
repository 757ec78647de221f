"""The jobs: launch, stop and restart streams, and load MongoDB.

Here: what a run does, in short steps that return; a stream lives on as a process of its own.
Not here: when a run is requested (`orchestration.sensors`).

Run configuration of the three stream jobs, all streams when left out:

    ops: {launch: {config: {streams: [moving, zscore]}}}      # or stop:, restart:
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import dagster as dg
from pydantic import Field, field_validator

from orchestration.assets import LOAD_GROUP
from orchestration.resources import StreamsResource
from orchestration.streams import StreamError
from spark_jobs.jobs import JOBS


class StreamSelection(dg.Config):
    """Which streams a run is about."""

    streams: list[str] = Field(list(JOBS), description=f"Some of {', '.join(JOBS)}; all when left out.")

    @field_validator("streams")
    @classmethod
    def _known(cls, value: list[str]) -> list[str]:
        unknown = [name for name in value if name not in JOBS]
        if unknown or not value:
            raise ValueError(f"streams are some of {', '.join(JOBS)}, not {', '.join(unknown) or 'none'}")
        return list(dict.fromkeys(value))


def _each(context: dg.OpExecutionContext, names: Sequence[str], act: Callable[[str], object]) -> None:
    """Act on all streams at once, and only then fail if one failed: the others are not held up by it."""
    failures = []
    with ThreadPoolExecutor(max_workers=len(names)) as pool:
        for name, future in [(name, pool.submit(act, name)) for name in names]:
            try:
                future.result()
                context.log.info("%s: done", name)
            except StreamError as error:
                failures.append(f"{name}: {error}")
    if failures:
        raise dg.Failure("\n".join(failures), allow_retries=False)


class LaunchSelection(StreamSelection):
    """Which streams to launch."""

    only_wanted: bool = Field(
        False, description="Leave those alone that are wanted stopped by now: what the supervisor asks for."
    )


@dg.op
def launch(context: dg.OpExecutionContext, config: LaunchSelection, streams: StreamsResource) -> None:
    """Want the streams and start those that do not run; returns when all are at work."""
    processes = streams.get()
    _each(context, config.streams, processes.keep if config.only_wanted else processes.launch)


@dg.op
def stop(context: dg.OpExecutionContext, config: StreamSelection, streams: StreamsResource) -> None:
    """Stop wanting the streams and stop them; returns when they are gone."""
    _each(context, config.streams, streams.get().stop)


@dg.op
def restart(context: dg.OpExecutionContext, config: LaunchSelection, streams: StreamsResource) -> None:
    """Stop the streams, then start them; returns when all are at work."""
    processes = streams.get()

    def end_and_launch(name: str) -> None:
        processes.end(name)
        (processes.keep if config.only_wanted else processes.launch)(name)

    _each(context, config.streams, end_and_launch)


@dg.job(description="Start streams as processes of their own, and keep them running from now on.")
def launch_streams() -> None:
    """One step: `launch`."""
    launch()


@dg.job(description="Stop streams, and leave them stopped.")
def stop_streams() -> None:
    """One step: `stop`."""
    stop()


@dg.job(description="Stop and start streams, after a change of settings for example.")
def restart_streams() -> None:
    """One step: `restart`."""
    restart()


load_mongodb = dg.define_asset_job(
    "load_mongodb",
    selection=dg.AssetSelection.groups(LOAD_GROUP),
    description="Load the new rows of zscores into the collections of MongoDB.",
)

STREAM_JOBS = (launch_streams, stop_streams, restart_streams)
