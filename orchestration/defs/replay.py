"""The job that sends a recording into the running stack, as `tickhouse replay` does.

Run configuration, of which only `file` is needed:

    ops: {send_recording: {config: {file: /data/ticks.jsonl.gz, speed: max, sort: false, shift_to_now: false}}}
"""

import time

import dagster as dg
from pydantic import Field

from orchestration.defs.resources import StreamsResource
from orchestration.settings import OrchestrationSettings, SettingsError
from orchestration.supervision.replay import ReplayFailed, send
from producer.recordings.errors import RecordingError
from producer.recordings.location import path_of
from producer.recordings.question import Answer, Found

_TELL_SECONDS = 5.0


class ReplayConfig(dg.Config):
    """Which recording, and how it is sent."""

    file: str = Field(
        description="A file of JSON lines as on the topic btc-price, or of Binance's archive, plain or compressed, on "
        "the machine that runs the stack."
    )
    speed: str = Field(
        "max",
        description="1 as recorded, a factor such as 10, or max. Unless it is 1, shifted timestamps run ahead of the "
        "clock.",
    )
    symbol: str = Field("", description="Of a file of Binance's archive whose name does not tell it.")
    sort: bool = Field(False, description="Send the ticks in the order of their timestamps.")
    shift_to_now: bool = Field(
        False,
        description="Shift the timestamps so that the first tick is now. Else ticks that are older than those of their "
        "own symbol already there are late.",
    )


@dg.op
def send_recording(context: dg.OpExecutionContext, config: ReplayConfig, streams: StreamsResource) -> None:
    """Send a recording next to the stack's own source; returns when all of it is delivered."""
    # Addresses as they are, and a speed of its own.
    known = streams.settings().model_dump(include={"home", "kafka_bootstrap"})
    try:
        file = path_of(config.file)
        if not file.exists():
            raise dg.Failure(f"there is no file {file} on the machine that runs the stack", allow_retries=False)
        settings = OrchestrationSettings.read(
            **known, speed=config.speed, replay_symbol=config.symbol, replay_sort=config.sort
        )
    except (SettingsError, RecordingError) as error:
        raise dg.Failure(str(error), allow_retries=False) from error
    told_at = 0.0

    def progress(sent: int, acknowledged: int, last_timestamp: str | None) -> None:
        nonlocal told_at
        if time.monotonic() - told_at >= _TELL_SECONDS:
            told_at = time.monotonic()
            context.log.info(
                "%d sent, %d acknowledged, up to %s", sent, acknowledged, last_timestamp or "the beginning"
            )

    def decide(found: Found) -> Answer:
        for sentence in found.sentences:
            context.log.info("%s", sentence)
        return Answer.send

    try:
        told = send(settings, file, shift_to_now=config.shift_to_now, progress=progress, decide=decide)
    except ReplayFailed as error:
        raise dg.Failure(str(error), allow_retries=False) from error
    context.log.info("%s; nothing is left running", ". ".join(told))
    context.add_output_metadata({"delivered": told[0], "file": dg.MetadataValue.path(str(file))})


@dg.job(description="Send a recording into the running topic, next to the stack's own source. Needs the file's path.")
def replay() -> None:
    """One step: `send_recording`."""
    send_recording()
