"""Arrow batches kept for later: in memory while they are few, in a temporary file when they are large."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator

import pyarrow as pa

_IN_MEMORY_BYTES = 64 * 2**20


class SpilledBatches:
    """Batches of one schema, given back in the order in which they were added, once all have been."""

    def __init__(self, schema: pa.Schema) -> None:
        self._file = tempfile.SpooledTemporaryFile(_IN_MEMORY_BYTES)  # noqa: SIM115 -- closed when nobody needs it
        self._writer = pa.ipc.new_stream(pa.PythonFile(self._file, "w"), schema)

    def append(self, batch: pa.RecordBatch) -> None:
        """Keep a batch."""
        self._writer.write_batch(batch)

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        self._writer.close()
        self._file.seek(0)
        yield from pa.ipc.open_stream(pa.PythonFile(self._file, "r"))
