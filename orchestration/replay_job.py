"""The job that sends a recording into the running stack, as `tickhouse replay` does.

Here: its configuration, and progress in the run's log. Not here: sending (`orchestration.replay`, `producer`).

Run configuration, of which only `file` is needed:

    ops: {send_recording: {config: {file: /data/ticks.jsonl.gz, speed: max, shift_to_now: false}}}
"""

import time
from pathlib import Path

import dagster as dg
from pydantic import Field

from orchestration.recording import look_through, sentences
from orchestration.replay import ReplayFailed, send
from orchestration.resources import StreamsResource
from orchestration.settings import OrchestrationSettings, SettingsError
from producer.lines import RecordingError

_TELL_SECONDS = 5.0


class ReplayConfig(dg.Config):
    """Which recording, and how it is sent."""

    file: str = Field(
        description="A file of JSON lines as on the topic btc-price, plain or .gz, on the machine that runs the stack."
    )
    speed: str = Field(
        "max",
        description="1 as recorded, a factor such as 10, or max. Unless it is 1, shifted timestamps run ahead of the "
        "clock.",
    )
    shift_to_now: bool = Field(
        False,
        description="Shift the timestamps so that the first tick is now. Else ticks that are older than those of their "
        "own symbol already there are late.",
    )


@dg.op
def send_recording(context: dg.OpExecutionContext, config: ReplayConfig, streams: StreamsResource) -> None:
    """Send a recording next to the stack's own source; returns when all of it is delivered."""
    file = Path(config.file).expanduser().absolute()
    if not file.is_file():
        raise dg.Failure(f"there is no file {file} on the machine that runs the stack", allow_retries=False)
    # Addresses as they are, and a speed of its own.
    known = streams.settings().model_dump(include={"home", "kafka_bootstrap"})
    try:
        settings = OrchestrationSettings.read(**known, speed=config.speed)
    except SettingsError as error:
        raise dg.Failure(str(error), allow_retries=False) from error
    shifted, lateness = config.shift_to_now, settings.lateness_seconds
    told_at = 0.0

    def progress(sent: int, acknowledged: int, last_timestamp: str | None) -> None:
        nonlocal told_at
        if time.monotonic() - told_at >= _TELL_SECONDS:
            told_at = time.monotonic()
            context.log.info(
                "%d sent, %d acknowledged, up to %s", sent, acknowledged, last_timestamp or "the beginning"
            )

    try:
        delivered = send(settings, file, shift_to_now=shifted, progress=progress)
        found = look_through(file, None if shifted else time.time_ns() // 1_000_000, round(lateness * 1_000))
    except (ReplayFailed, RecordingError) as error:
        raise dg.Failure(str(error), allow_retries=False) from error
    told = sentences(file, delivered, found, lateness_seconds=lateness, shifted=shifted, speed=config.speed)
    context.log.info("%s; nothing is left running", ". ".join(told))
    context.add_output_metadata(
        {"messages": delivered, "rejects": found.rejects, "file": dg.MetadataValue.path(str(file))}
    )


@dg.job(description="Send a recording into the running topic, next to the stack's own source. Needs the file's path.")
def replay() -> None:
    """One step: `send_recording`."""
    send_recording()
