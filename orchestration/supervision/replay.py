"""Sends a recording into a running stack, beside the stack's own producer."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from orchestration.local import exit_status, processes
from orchestration.settings import OrchestrationSettings
from producer.recordings.errors import RecordingError
from producer.recordings.location import Location, readable_again
from producer.recordings.question import ASK_OPTION, Answer, Found
from tickhouse import environment
from tickhouse.environment import PREFIX
from tickhouse.file_lock import LockHeld, held

_LOOK_SECONDS = 0.2
_PRODUCER = "producer"

Progress = Callable[[int, int, str | None], None]
Decide = Callable[[Found], Answer]


class ReplayFailed(RuntimeError):
    """The recording is not delivered completely; the text says why."""


class NotSent(Exception):
    """Nothing was sent, as the answer to what was found was to stop."""


def send(
    settings: OrchestrationSettings, file: Path, *, shift_to_now: bool, progress: Progress, decide: Decide
) -> list[str]:
    """Send `file` to the stack of `settings` at its speed; returns what there is to say of what was delivered.

    `progress` is told messages sent, messages acknowledged and the last timestamp; `decide` is asked once it is known
    what is in the recording. Raises ReplayFailed, or NotSent. An exception in the meantime, KeyboardInterrupt above
    all, stops the producer cleanly.
    """
    folder = settings.home / "replay"
    try:
        # Two would share the heartbeat, by which it is known what is delivered.
        with held(folder / "replay.lock", 0), readable_again(file, folder / "input") as place:
            return _send(settings, place, folder, shift_to_now=shift_to_now, progress=progress, decide=decide)
    except LockHeld:
        raise ReplayFailed("another recording is being sent: wait for its end, or stop it") from None
    except RecordingError as error:
        raise ReplayFailed(str(error)) from error


def _send(
    settings: OrchestrationSettings,
    place: Location,
    folder: Path,
    *,
    shift_to_now: bool,
    progress: Progress,
    decide: Decide,
) -> list[str]:
    _end_left_behind(folder)
    log = folder / "replay.log"
    decided = {
        "home": str(folder),
        "kafka_bootstrap": settings.kafka_bootstrap,
        "source": f"replay:{place.path}",
        "speed": settings.speed,
        "replay_timestamps": "now" if shift_to_now else "recorded",
        "replay_name": place.name,
        "replay_symbol": settings.replay_symbol,
        "replay_sort": str(settings.replay_sort),
        "lateness_seconds": str(settings.lateness_seconds),
    }
    scratch = environment.scratch_folder(settings.home)
    variables = environment.child_environment(os.environ, scratch, environment.find_account(os.environ, scratch))
    variables |= {f"{PREFIX}{name.upper()}": value for name, value in decided.items()}
    command = [sys.executable, "-m", "producer", ASK_OPTION]
    with log.open("wb") as output:
        producer = subprocess.Popen(
            command, env=variables, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=output
        )
    answer = Answer.send
    try:
        processes.record(folder, _PRODUCER, producer, command, log)
        with selectors.DefaultSelector() as selector:
            assert producer.stdin is not None
            assert producer.stdout is not None
            selector.register(producer.stdout, selectors.EVENT_READ)
            while selector.get_map():
                if selector.select(_LOOK_SECONDS):
                    line = producer.stdout.readline()
                    if line:
                        answer = decide(Found.model_validate_json(line))
                        producer.stdin.write(f"{answer}\n".encode())
                        producer.stdin.flush()
                    else:
                        selector.unregister(producer.stdout)
                seen = _heartbeat(folder, producer.pid)
                progress(seen.get("sent", 0), seen.get("acknowledged", 0), seen.get("last_timestamp"))
        producer.wait()
    except BrokenPipeError:
        producer.wait()
    except BaseException:
        producer.send_signal(signal.SIGTERM)
        producer.communicate()
        raise
    seen = _heartbeat(folder, producer.pid)
    if seen.get("state") == "stopped" and answer == Answer.stop:
        raise NotSent
    if seen.get("state") != "ended":
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        ended = f"it ended {exit_status.told('producer', producer.returncode)}; see {log}"
        raise ReplayFailed(seen.get("error") or (ended if producer.returncode < 0 or not lines else lines[-1]))
    return list(seen["delivered"])


def end_left_behind(home: Path) -> int | None:
    """End the producer of a sender that was killed; returns its pid, None when there is none or somebody sends."""
    folder = home / "replay"
    try:
        with held(folder / "replay.lock", 0):
            return _end_left_behind(folder)
    except LockHeld:
        return None


def _end_left_behind(folder: Path) -> int | None:
    """Whoever holds the lock knows that the sender before is gone; its producer need not be."""
    left = processes.recorded(folder, _PRODUCER)
    if left is None or not processes.alive(left):
        return None
    processes.stop(left)
    return left.pid


def _heartbeat(folder: Path, pid: int) -> dict[str, Any]:
    """The heartbeat if it is this producer's, else nothing."""
    found = processes.read_heartbeat(folder, _PRODUCER) or {}
    return found if found.get("pid") == pid else {}
