"""What a checkpoint belongs to, and how far it has got.

Belongs here: the identity kept beside each checkpoint, and reading Spark's own offset log. Does not belong here: where
checkpoints are (`settings`) or the state inside them (`operators`).

A checkpoint holds state whose meaning depends on the job's version and parameters. These are written down when it is
made and compared when it is used again, so that an old one is never read with new meaning.
"""

from __future__ import annotations

import json
from typing import Any

from pyspark.sql import SparkSession

_IDENTITY_FILE = "tickhouse.json"


class CheckpointMismatch(Exception):
    """A checkpoint was made by another version of the job or with other parameters; the message says what to do."""


class Checkpoint:
    """One query's checkpoint at any URI that Spark can write."""

    def __init__(self, spark: SparkSession, uri: str) -> None:
        self._uri = uri
        jvm: Any = spark.sparkContext._jvm
        self._jvm = jvm
        configuration = spark.sparkContext._jsc.hadoopConfiguration()
        self._path = jvm.org.apache.hadoop.fs.Path(uri)
        self._files = self._path.getFileSystem(configuration)

    def claim(self, identity: dict[str, Any]) -> None:
        """Write the identity down, or compare it. Raises CheckpointMismatch."""
        path = self._child(_IDENTITY_FILE)
        if self._files.exists(path):
            found = json.loads(self._read(path))
            if found != identity:
                raise CheckpointMismatch(
                    f"the checkpoint {self._uri} was made with {found}, this job runs with {identity}: start it with "
                    "the settings it was made with, or move the checkpoint away to begin again from the first offset"
                )
        else:
            stream = self._files.create(path, False)
            try:
                stream.write(json.dumps(identity).encode())
            finally:
                stream.close()

    def committed(self) -> tuple[int, dict[str, dict[str, int]]] | None:
        """The last committed micro-batch, and per topic and partition the next offset after it; None if none is."""
        batches = self._numbers("commits")
        if not batches:
            return None
        batch = max(batches)
        # The offset log: a version line, a line of metadata, then a line for each source.
        lines = self._read(self._child(f"offsets/{batch}")).splitlines()[2:]
        offsets: dict[str, dict[str, int]] = {}
        for line in lines:
            offsets |= json.loads(line)
        return batch, offsets

    def _child(self, name: str) -> Any:
        return self._jvm.org.apache.hadoop.fs.Path(self._path, name)

    def _numbers(self, folder: str) -> list[int]:
        path = self._child(folder)
        if not self._files.exists(path):
            return []
        names = [status.getPath().getName() for status in self._files.listStatus(path)]
        return [int(name) for name in names if name.isdigit()]

    def _read(self, path: Any) -> str:
        stream = self._files.open(path)
        try:
            text: str = self._jvm.org.apache.commons.io.IOUtils.toString(stream, "UTF-8")
        finally:
            stream.close()
        return text
