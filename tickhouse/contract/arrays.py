"""Types of arrays, and texts made of whole arrays."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def timestamp_texts(timestamps: Integers) -> list[str]:
    """Milliseconds since the epoch as `2025-05-08T13:06:00.000Z`, one for each."""
    texts: list[str] = np.datetime_as_string(timestamps.astype("datetime64[ms]"), unit="ms", timezone="UTC").tolist()
    return texts
