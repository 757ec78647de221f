"""The picture of the last hour: a PNG that any viewer reads, small, with all that is known and no more."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest

from orchestration.defs.asset_events import as_code
from orchestration.monitoring.charts import LARGEST_BYTES, Curve, Curves, Values, draw, markdown
from tickhouse.contract.names import WINDOWS

NOTHING = Curve(np.array([], "datetime64[ms]"), np.array([]))


def curves(points: int) -> Curves:
    """A symbol that wanders, of as many points as asked."""
    random = np.random.default_rng(5)
    times = np.datetime64("2026-11-24T15:00:00", "ms") + np.arange(points) * np.timedelta64(20, "s")
    price: Values = 64_000 + np.cumsum(random.normal(0, 8, points))
    deviation = np.full(points, 20.0)
    deviation[: points // 9] = np.nan  # a window with one tick has none
    scores = {window: Curve(times, random.normal(0, 1.3, points).astype(np.float64)) for window in WINDOWS}
    lags = {
        name: Curve(times, random.integers(0, 900, points).astype(np.float64))
        for name in ("prices", "moving", "zscore")
    }
    mean = Curve(times, price - 5)
    return Curves("BTCUSDT", "5m", Curve(times, price), mean, Curve(times, deviation), scores, lags)


@pytest.mark.parametrize("points", [1, 180])
def test_a_picture_is_small_and_has_something_on_it(points: int) -> None:
    from matplotlib.image import imread

    picture = draw(curves(points))
    assert len(picture) <= LARGEST_BYTES
    pixels = imread(io.BytesIO(picture))
    height, width = pixels.shape[:2]
    assert (width, height) == (560, 416)
    for top in (0, height // 3, 2 * height // 3):
        panel = pixels[top : top + height // 3, :, :3]
        assert 0.5 < (panel > 0.99).all(axis=2).mean() < 0.995, "white paper with lines on it"


def test_what_is_not_known_is_no_obstacle() -> None:
    some = curves(50)
    empty = Curves("BTCUSDT", "5m", some.price, NOTHING, NOTHING, {"30s": NOTHING}, {})
    assert draw(empty).startswith(b"\x89PNG")


def test_markdown_holds_the_picture_itself() -> None:
    some = curves(5)
    match = re.fullmatch(r"!\[BTCUSDT: [^]]*\]\(data:image/png;base64,([A-Za-z0-9+/=]+)\)", markdown(b"\x89PNG", some))
    assert match is not None and base64.b64decode(match[1]) == b"\x89PNG"


@pytest.mark.parametrize("text", ["plain", "with ``` in it", "````\n# not a heading", ""])
def test_a_log_is_shown_as_it_is(text: str) -> None:
    first, *middle, last = as_code(text).split("\n")
    assert first == last + "text" and set(last) == {"`"}
    assert "\n".join(middle) == text and last not in text
