"""One process at a time works on a checkpoint.

Belongs here: taking the lock, and saying who has it. Does not belong here: the checkpoint itself (`checkpoints`).

The lock is the kernel's, on a file in the checkpoint's folder, and the JVM's, because the JVM writes the checkpoint: it
lasts exactly as long as that process, however long it is suspended and whatever becomes of the Python process beside
it. There is no such lock where a checkpoint is not on a local disk: there only the transactions keep the results of two
processes apart, and nothing the checkpoint.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession

_NAME = "tickhouse.lock"
_WAIT_SECONDS = 10.0
_LOOK_SECONDS = 0.2


class CheckpointHeld(Exception):
    """Another process works on the checkpoint; the message names it."""


def lock_for_jvm(spark: SparkSession, folder: Path, wait_seconds: float = _WAIT_SECONDS) -> Any:
    """Let the session's JVM lock a checkpoint's folder for as long as it lives; keep what is returned as long.

    A predecessor that is just ending gets `wait_seconds`. Raises CheckpointHeld.
    """
    folder.mkdir(parents=True, exist_ok=True)
    jvm: Any = spark.sparkContext._jvm
    gateway: Any = spark.sparkContext._gateway
    file = jvm.java.io.RandomAccessFile(str(folder / _NAME), "rw")
    channel = file.getChannel()
    deadline = time.monotonic() + wait_seconds
    while (lock := channel.tryLock()) is None:
        if time.monotonic() > deadline:
            file.close()
            raise CheckpointHeld(_told(folder))
        time.sleep(_LOOK_SECONDS)
    file.setLength(0)
    file.writeBytes(json.dumps({"jvm": gateway.proc.pid, "python": os.getpid()}))
    return file, channel, lock


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a checkpoint's folder, which exists, from this process. Raises CheckpointHeld."""
    with (folder / _NAME).open("ab") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise CheckpointHeld(_told(folder)) from error
        yield


def _told(folder: Path) -> str:
    try:
        holder = json.loads((folder / _NAME).read_text())
        who = f"process {holder['python']} with its JVM {holder['jvm']} (suspended, perhaps)"
    except (ValueError, KeyError, TypeError):
        who = "another process"
    return f"{who} still works on the checkpoint {folder}: end it first, two must never write one checkpoint"
