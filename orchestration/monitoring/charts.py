"""Pictures of the last hour for Dagster's materialisations: price with its band, z-scores, and what waits for streams.

Pure: no I/O.

The drawing library is loaded by the first picture: it takes long, and loading the definitions must not.
"""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Values = npt.NDArray[np.float64]
Times = npt.NDArray[np.datetime64]

LARGEST_BYTES = 60_000
"""Of one picture: every one is kept in Dagster's event log."""
_SIZE_INCHES = (7.0, 5.2)
_DOTS_PER_INCH = 80
_STEP = 51
"""Between two of the six levels of a colour in the palette."""
# Okabe and Ito's colours, which the colour-blind tell apart; the lines differ in their style as well.
_BLACK, _ORANGE, _SKY, _GREEN, _BLUE, _VERMILION = "#000000", "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00"
_COLOURS = (_SKY, _GREEN, _ORANGE, _BLUE, _VERMILION, _BLACK)
_STYLES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)))


@dataclass(frozen=True)
class Curve:
    """Values over time, in UTC. NaN where there is none."""

    times: Times
    values: Values


@dataclass(frozen=True)
class Curves:
    """What a picture shows. `price`, `mean` and `deviation` in the quote currency, `scores` in standard deviations."""

    symbol: str
    window: str
    """Which window's band is drawn."""
    price: Curve
    mean: Curve
    deviation: Curve
    """At the times of `mean`."""
    scores: Mapping[str, Curve] = field(default_factory=dict)
    """By window."""
    lags: Mapping[str, Curve] = field(default_factory=dict)
    """By stream: messages that waited for it."""


def draw(curves: Curves) -> bytes:
    """The picture as a PNG of at most `LARGEST_BYTES`, three panels one below the other."""
    # Not pyplot, which keeps every figure and is for one thread only.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
    from matplotlib.figure import Figure

    figure = Figure(figsize=_SIZE_INCHES, dpi=_DOTS_PER_INCH, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    above, middle, below = figure.subplots(3, 1, sharex=True, height_ratios=(5, 4, 3))
    _draw_price(above, curves)
    _draw_scores(middle, curves)
    _draw_lags(below, curves)
    for panel in (above, middle, below):
        panel.grid(color="#CCCCCC", linewidth=0.5)
        panel.spines[["top", "right"]].set_visible(False)
    locator = AutoDateLocator()  # type: ignore[no-untyped-call]
    below.xaxis.set_major_locator(locator)
    below.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
    below.set_xlabel("UTC", fontsize=8)
    canvas.draw()  # type: ignore[no-untyped-call]
    return _png(np.asarray(canvas.buffer_rgba())[:, :, :3])  # type: ignore[no-untyped-call]


def _png(pixels: npt.NDArray[np.uint8]) -> bytes:
    """A PNG with a palette of six levels for each of red, green and blue, from pixels of shape (height, width, 3).

    The drawing library writes full colour only, which takes four times as much.
    """
    height, width, _ = pixels.shape
    levels = np.round(pixels / _STEP).astype(np.uint8)
    indices = levels[:, :, 0] * 36 + levels[:, :, 1] * 6 + levels[:, :, 2]
    unfiltered = np.zeros((height, 1), np.uint8)
    palette = np.stack(np.meshgrid(*[np.arange(6)] * 3, indexing="ij"), axis=-1).reshape(-1, 3) * _STEP
    parts = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)),
        (b"PLTE", palette.astype(np.uint8).tobytes()),
        (b"IDAT", zlib.compress(np.hstack([unfiltered, indices]).tobytes(), 9)),
        (b"IEND", b""),
    )
    chunks = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def _draw_price(panel: Axes, curves: Curves) -> None:
    mean, deviation = curves.mean, curves.deviation.values
    panel.fill_between(
        _any(mean.times),
        mean.values - 2 * deviation,
        mean.values + 2 * deviation,
        color=_SKY,
        alpha=0.35,
        linewidth=0,
        label=f"mean ± 2σ, {curves.window}",
    )
    panel.plot(_any(mean.times), mean.values, color=_BLUE, linewidth=1, linestyle="--", label=f"mean, {curves.window}")
    panel.plot(_any(curves.price.times), curves.price.values, color=_BLACK, linewidth=1, label="price")
    panel.set_title(f"{curves.symbol}, the last hour of ticks", fontsize=10, loc="left")
    panel.ticklabel_format(axis="y", useOffset=False)
    _finish(panel, "price", any(curve.values.size for curve in (curves.price, mean)))


def _draw_scores(panel: Axes, curves: Curves) -> None:
    for (window, curve), colour, style in zip(curves.scores.items(), _COLOURS, _STYLES, strict=False):
        panel.plot(_any(curve.times), curve.values, color=colour, linestyle=style, linewidth=1, label=window)
    for level in (-2, 2):
        panel.axhline(level, color="#777777", linewidth=0.7, linestyle=":")
    _finish(panel, "z-score (σ)", any(curve.values.size for curve in curves.scores.values()))


def _draw_lags(panel: Axes, curves: Curves) -> None:
    for (stream, curve), colour, style in zip(curves.lags.items(), _COLOURS[1:], _STYLES, strict=False):
        panel.plot(_any(curve.times), curve.values, color=colour, linestyle=style, linewidth=1, label=stream)
    panel.set_ylim(bottom=0, auto=True)
    _finish(panel, "lag (messages)", any(curve.values.size for curve in curves.lags.values()))


def _finish(panel: Axes, label: str, known: bool) -> None:
    panel.set_ylabel(label, fontsize=8)
    panel.tick_params(labelsize=7)
    if known:
        panel.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    else:
        panel.text(0.5, 0.5, "nothing known", transform=panel.transAxes, ha="center", va="center", color="#555555")


def _any(times: Times) -> Any:
    return times  # matplotlib takes datetime64, and its annotations do not say so


def markdown(picture: bytes, curves: Curves) -> str:
    """Markdown that shows the picture without fetching anything."""
    data = base64.b64encode(picture).decode()
    return f"![{curves.symbol}: price with its band, z-scores and lag](data:image/png;base64,{data})"
