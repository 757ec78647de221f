"""Sends a recording into a running stack, beside the stack's own producer.

Belongs here: running a second producer, with a heartbeat of its own, until it ends. Does not belong here: what it sends
and how (`producer`), or showing progress (`cli`).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from orchestration import endings, processes
from orchestration.settings import OrchestrationSettings
from spark_jobs.file_lock import LockHeld, held
from tickhouse import environment
from tickhouse.environment import PREFIX

_LOOK_SECONDS = 0.2
_PRODUCER = "producer"


class ReplayFailed(RuntimeError):
    """The recording is not delivered completely; the text says why."""


def send(
    settings: OrchestrationSettings,
    file: Path,
    *,
    shift_to_now: bool,
    progress: Callable[[int, int, str | None], None],
) -> int:
    """Send `file` to the stack of `settings` at its speed; returns how many messages were delivered by this call.

    `progress` is told messages sent, messages acknowledged and the last timestamp. Raises ReplayFailed. An exception
    in the meantime, KeyboardInterrupt above all, stops the producer cleanly.
    """
    folder = settings.home / "replay"
    try:
        # Two would share the heartbeat, by which it is known what is delivered.
        with held(folder / "replay.lock", 0):
            return _send(settings, file, folder, shift_to_now=shift_to_now, progress=progress)
    except LockHeld:
        raise ReplayFailed("another recording is being sent: wait for its end, or stop it") from None


def _send(
    settings: OrchestrationSettings,
    file: Path,
    folder: Path,
    *,
    shift_to_now: bool,
    progress: Callable[[int, int, str | None], None],
) -> int:
    _end_left_behind(folder)
    log = folder / "replay.log"
    decided = {
        "home": str(folder),
        "kafka_bootstrap": settings.kafka_bootstrap,
        "source": f"replay:{file}",
        "speed": settings.speed,
        "replay_timestamps": "now" if shift_to_now else "recorded",
    }
    scratch = environment.scratch_folder(settings.home)
    variables = environment.child_environment(os.environ, scratch, environment.find_account(os.environ, scratch))
    variables |= {f"{PREFIX}{name.upper()}": value for name, value in decided.items()}
    command = [sys.executable, "-m", "producer"]
    with log.open("wb") as output:
        producer = subprocess.Popen(
            command, env=variables, cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    try:
        processes.record(folder, _PRODUCER, producer, command, log)
        while producer.poll() is None:
            seen = _heartbeat(folder, producer.pid)
            progress(seen.get("sent", 0), seen.get("acknowledged", 0), seen.get("last_timestamp"))
            time.sleep(_LOOK_SECONDS)
    except BaseException:
        producer.send_signal(signal.SIGTERM)
        producer.wait()
        raise
    seen = _heartbeat(folder, producer.pid)
    if seen.get("state") != "ended":
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        ended = f"it ended {endings.told('producer', producer.returncode)}; see {log}"
        raise ReplayFailed(seen.get("error") or (ended if producer.returncode < 0 or not lines else lines[-1]))
    return int(seen["acknowledged"])


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
