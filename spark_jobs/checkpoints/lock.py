"""One process at a time works on a checkpoint.

The JVM holds it, because the JVM writes the checkpoint. Where a checkpoint is not on a local disk there is no such
lock: there only the transactions keep the results of two processes apart, and nothing the checkpoint.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession

from tickhouse.file_lock import LockHeld, held, wait


def held_by_jvm(spark: SparkSession, path: Path, wait_seconds: float) -> Any:
    """Hold the lock in the JVM of a session until the file that is returned, a RandomAccessFile, is closed.

    The file's folder is created. Raises LockHeld.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    jvm: Any = spark.sparkContext._jvm
    file = jvm.java.io.RandomAccessFile(str(path), "rw")
    channel = file.getChannel()
    try:
        wait(lambda: channel.tryLock() is not None, path, wait_seconds)
    except BaseException:
        file.close()
        raise
    return file


_NAME = "tickhouse.lock"
_WAIT_SECONDS = 10.0


class CheckpointHeld(Exception):
    """Another process works on the checkpoint; the message names it."""


def lock_for_jvm(spark: SparkSession, folder: Path, wait_seconds: float = _WAIT_SECONDS) -> Any:
    """Let the session's JVM lock a checkpoint's folder for as long as it lives; keep what is returned as long.

    A predecessor that is just ending gets `wait_seconds`. Raises CheckpointHeld.
    """
    try:
        file = held_by_jvm(spark, folder / _NAME, wait_seconds)
    except LockHeld as error:
        raise CheckpointHeld(_told(folder)) from error
    gateway: Any = spark.sparkContext._gateway
    file.setLength(0)
    file.writeBytes(json.dumps({"jvm": gateway.proc.pid, "python": os.getpid()}))
    return file


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a checkpoint's folder from this process. Raises CheckpointHeld."""
    try:
        with held(folder / _NAME, 0):
            yield
    except LockHeld as error:
        raise CheckpointHeld(_told(folder)) from error


def _told(folder: Path) -> str:
    try:
        holder = json.loads((folder / _NAME).read_text())
        who = f"process {holder['python']} with its JVM {holder['jvm']} (suspended, perhaps)"
    except (ValueError, KeyError, TypeError):
        who = "another process"
    return f"{who} still works on the checkpoint {folder}: end it first, two must never write one checkpoint"
