"""`python -m producer`: read the settings, run the source, say how it went.

Exit code 0: stopped as asked, or the recording is on the topic completely. 1: failed. 2: a setting, the recording or
the request is wrong, and starting again will not help.
"""

from __future__ import annotations

import fcntl
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import SecretStr, ValidationError

from producer.heartbeat import Heartbeat, Progress
from producer.kafka_access import client_security
from producer.publish import DeliveryError, Publisher, Stopped
from producer.recordings.errors import RecordingError, ResumeError
from producer.recordings.question import ASK_OPTION, Answer, Found
from producer.settings import ProducerSettings
from producer.sources import HopelessRequestError, PollingSource
from tickhouse.leaving import leave

if TYPE_CHECKING:
    from producer.replay import ReplaySource

_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)

_Source = Callable[[Publisher, Progress, threading.Event], "PollingSource | ReplaySource"]

_log = logging.getLogger("producer")


class AlreadyRunningError(Exception):
    """Another producer works for the same home."""


def main() -> int:
    """Run the producer until its source ends or a signal stops it; returns the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    # Kafka's client reports every attempt to reach a broker that is away; once is enough, and that is our note.
    logging.getLogger("kafka").setLevel(logging.CRITICAL)
    try:
        settings = ProducerSettings()
    except ValidationError as error:
        for fault in error.errors():
            field = str(fault["loc"][0])
            secret = ProducerSettings.model_fields[field].annotation is SecretStr
            found = "" if secret else f" (it is {fault['input']!r})"
            _log.error("TICKHOUSE_%s: %s%s", field.upper(), fault["msg"].removeprefix("Value error, "), found)
        return 2
    stop = _stop_event()
    run_folder = settings.home / "run"
    try:
        run_folder.mkdir(parents=True, exist_ok=True)
        with _only_one(run_folder / "producer.instance.lock"):
            return _run(settings, run_folder, stop)
    except (AlreadyRunningError, OSError) as error:
        _log.error("%s", error)
        return 2


def _run(settings: ProducerSettings, run_folder: Path, stop: threading.Event) -> int:
    progress = Progress(settings.source)
    heartbeat = Heartbeat(run_folder / "producer.heartbeat.json", progress)
    try:
        code = _produce(settings, run_folder, progress, stop)
    except (RecordingError, HopelessRequestError) as error:
        progress.fail(str(error))
        code = 2
    except (DeliveryError, ResumeError) as error:
        progress.fail(str(error))
        code = 1
    except Exception as error:
        _log.exception("unexpected")
        progress.fail(f"{type(error).__name__}: {error}")
        code = 1
    finally:
        heartbeat.close()
    return code


def _produce(settings: ProducerSettings, run_folder: Path, progress: Progress, stop: threading.Event) -> int:
    # Before the broker is waited for: what cannot be replayed is told at once.
    source = _polling(settings, run_folder) if settings.replay_file is None else _replay(settings, run_folder)
    progress.change("waiting", f"connecting to the broker at {settings.kafka_bootstrap}")
    try:
        publisher = Publisher(
            settings.kafka_bootstrap,
            settings.ticks_topic,
            progress,
            stop,
            security=client_security(settings),
            buffer_messages=settings.buffer_messages,
            delivery_seconds=settings.delivery_seconds,
            wait_seconds=settings.broker_wait_seconds,
        )
    except Stopped:
        progress.change("stopped")
        return 0
    try:
        ended = False
        try:
            ended = source(publisher, progress, stop).run()
        except Stopped:
            _log.info("told to stop while waiting")
        except (HopelessRequestError, RecordingError):
            publisher.flush(settings.flush_seconds)
            raise
        publisher.flush(settings.flush_seconds)
        progress.change("ended" if ended else "stopped")
        return 0
    finally:
        publisher.close()


def _polling(settings: ProducerSettings, run_folder: Path) -> _Source:
    return partial(
        PollingSource,
        settings.binance_url,
        settings.symbols,
        settings.step_ms,
        settings.answer_seconds,
        run_folder / "producer.pause.json",
    )


def _replay(settings: ProducerSettings, run_folder: Path) -> _Source:
    # Loaded for a replay only: polling does without what it needs.
    from producer.recordings.location import location
    from producer.recordings.recording import Recording
    from producer.replay import ReplaySource
    from tickhouse.kafka.access import librdkafka_security

    assert settings.replay_file is not None
    source = partial(
        ReplaySource,
        Recording(location(settings.replay_file, settings.replay_name), settings.replay_symbol or None),
        bootstrap=settings.kafka_bootstrap,
        security=librdkafka_security(settings),
        topic=settings.ticks_topic,
        speed=settings.speed_factor,
        shift_to_now=settings.replay_timestamps == "now",
        sort=settings.replay_sort,
        folder=run_folder / "recording",
        step_ms=settings.step_ms,
        lateness_seconds=settings.lateness_seconds,
        ask=_ask if ASK_OPTION in sys.argv else None,
    )
    return lambda publisher, progress, stop: source(publisher=publisher, progress=progress, stop=stop)


def _ask(found: Found) -> Answer:
    """Say what was found to whoever started this process, and wait for the answer; their end is a no."""
    sys.stdout.write(f"{found.model_dump_json()}\n")
    sys.stdout.flush()
    return Answer(sys.stdin.readline().strip() or Answer.stop)


def _stop_event() -> threading.Event:
    """An event that SIGTERM and SIGINT set.

    A thread waits for the signals: a handler would run inside whatever the main thread is doing, and could find the
    event's own lock taken. All threads started later inherit the mask.
    """
    stop = threading.Event()
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)

    def wait() -> None:
        number = signal.sigwait(_STOP_SIGNALS)
        _log.info("%s: stopping", signal.Signals(number).name)
        stop.set()

    threading.Thread(target=wait, name="signals", daemon=True).start()
    return stop


@contextmanager
def _only_one(path: Path) -> Iterator[None]:
    """Hold a lock that the kernel drops with the process, however it ends. Raises AlreadyRunningError."""
    with path.open("w", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyRunningError(
                f"another producer is running for {path.parent.parent}; stop that one first"
            ) from None
        file.write(str(os.getpid()))
        file.flush()
        yield


if __name__ == "__main__":
    leave(main())
