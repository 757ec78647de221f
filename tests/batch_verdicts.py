"""The verdicts of the accept rule for batches in the form in which the rule for one message gives them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from tickhouse.contract.batch_validation import accept_batch
from tickhouse.contract.validation import Rejection, Tick


def batch_verdicts(
    keys: Sequence[bytes | None], values: Sequence[bytes | None], record_timestamps: Sequence[int | None]
) -> list[Tick | Rejection]:
    """What `accept_batch` says of each message."""
    times = np.array([-1 if time is None else time for time in record_timestamps], dtype=np.int64)
    verdicts = accept_batch(pa.array(keys, pa.binary()), pa.array(values, pa.binary()), times)
    assert len(set(verdicts.symbols)) == len(verdicts.symbols)
    found: list[Tick | Rejection] = []
    columns = (verdicts.of_symbol, verdicts.prices, verdicts.timestamps)
    for at, (symbol, price, timestamp) in enumerate(zip(*(column.tolist() for column in columns), strict=True)):
        if symbol < 0:
            assert (symbol, price, timestamp) == (-1, 0, 0)
            found.append(Rejection(verdicts.reasons[at]))
        else:
            assert at not in verdicts.reasons
            found.append(Tick(verdicts.symbols[symbol], price, timestamp))
    return found
