"""The jobs: launch, stop and restart streams, load MongoDB, and maintain the tables.

Run configuration of the three stream jobs, all streams when left out:

    ops: {launch: {config: {streams: [moving, zscore]}}}      # or stop:, restart:

and of the maintenance, all tables when left out:

    ops: {maintain: {config: {tables: [zscores], mongo_retention_days: 30, dry_run: true}}}
"""

from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor

import dagster as dg
from pydantic import Field, field_validator

from orchestration.defs.asset_events import log_metadata
from orchestration.defs.resources import StreamsResource
from orchestration.supervision.streams import StreamError, Streams
from tickhouse.contract.topology import JOBS


def some_of(what: str, known: Collection[str], names: Sequence[str]) -> list[str]:
    """The names without repetitions. Raises ValueError when there is none, or one that is not known."""
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise ValueError(f"{what} are some of {', '.join(known)}, not {', '.join(unknown) or 'none'}")
    return list(dict.fromkeys(names))


class StreamSelection(dg.Config):
    """Which streams a run is about."""

    streams: list[str] = Field(list(JOBS), description=f"Some of {', '.join(JOBS)}; all when left out.")

    @field_validator("streams")
    @classmethod
    def _known(cls, value: list[str]) -> list[str]:
        return some_of("streams", JOBS, value)


def _each(context: dg.OpExecutionContext, streams: Streams, names: Sequence[str], act: Callable[[str], object]) -> None:
    """Act on all streams at once, and only then fail if one failed: the others are not held up by it.

    The log and the step's metadata tell what is running in the end, and how each log ends.
    """
    failures = []
    with ThreadPoolExecutor(max_workers=len(names)) as pool:
        for name, future in [(name, pool.submit(act, name)) for name in names]:
            try:
                future.result()
                context.log.info(_left(streams, name))
            except StreamError as error:
                failures.append(f"{name}: {error}")
                context.log.error("%s; %s", failures[-1], _left(streams, name))
    told = {key: value for name in names for key, value in log_metadata(streams, name, f"{name}_").items()}
    if failures:
        raise dg.Failure("\n".join(failures), metadata=told, allow_retries=False)
    context.add_output_metadata(told)


def _left(streams: Streams, name: str) -> str:
    """What is left of a stream after an action, and where its log is."""
    view = streams.observe(name)
    process = f"{view.state} as process {view.pid}" if view.pid else f"{view.state}, no process is left"
    return f"{name}: {process}, wanted {'running' if streams.wanted(name) else 'stopped'}; log {streams.log_path(name)}"


class LaunchSelection(StreamSelection):
    """Which streams to launch."""

    only_wanted: bool = Field(
        False, description="Leave those alone that are wanted stopped by now: what the supervisor asks for."
    )


@dg.op
def launch(context: dg.OpExecutionContext, config: LaunchSelection, streams: StreamsResource) -> None:
    """Want the streams and start those that do not run; returns when all are at work."""
    processes = streams.get(context.log.info)
    _each(context, processes, config.streams, processes.keep if config.only_wanted else processes.launch)


@dg.op
def stop(context: dg.OpExecutionContext, config: StreamSelection, streams: StreamsResource) -> None:
    """Stop wanting the streams and stop them; returns when they are gone."""
    stop_all(context, streams.get(context.log.info), config.streams)


def stop_all(context: dg.OpExecutionContext, streams: Streams, names: Sequence[str]) -> None:
    """Stop wanting streams and stop them, telling the run's log."""
    _each(context, streams, names, streams.stop)


@dg.op
def restart(context: dg.OpExecutionContext, config: LaunchSelection, streams: StreamsResource) -> None:
    """Stop the streams, then start them; returns when all are at work."""
    processes = streams.get(context.log.info)

    def end_and_launch(name: str) -> None:
        processes.end(name)
        (processes.keep if config.only_wanted else processes.launch)(name)

    _each(context, processes, config.streams, end_and_launch)


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


STREAM_JOBS = (launch_streams, stop_streams, restart_streams)
