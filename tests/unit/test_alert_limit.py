"""The limit of |z| from which on there is an alert, on a day of the simulator's prices: seldom, and never blind."""

import numpy as np
import numpy.typing as npt
import pytest

from orchestration.defs.alerts import ALERT_SECONDS, NEWEST_SECONDS
from orchestration.monitoring import alerts
from orchestration.settings import OrchestrationSettings
from producer.walk import CATALOGUE, STEP_SECONDS, Walk
from spark_jobs.compute.recompute import Ticks, scored
from tickhouse.contract.names import WINDOWS

LIMIT = OrchestrationSettings.model_fields["alert_zscore"].default
DAY = round(86_400 / STEP_SECONDS)
HOUR = round(3_600 / STEP_SECONDS)
START = 1_746_662_400_000


def walked(symbol: str, seed: int, steps: int) -> npt.NDArray[np.float64]:
    """Prices of the simulator, shape (steps,)."""
    walk = Walk(symbol, CATALOGUE[symbol], seed)
    return np.array([float(walk.price_at(step)) for step in range(steps)])


def raised(prices: npt.NDArray[np.float64]) -> list[str]:
    """The alerts of a stretch of prices, as the sensor's looks at the newest z-scores raise them."""
    timestamps = START + np.arange(len(prices)) * round(STEP_SECONDS * 1_000)
    ticks = Ticks(timestamps, np.rint(prices * 1e8).astype(np.int64))
    parts = scored(ticks, START - 1, int(timestamps[-1]))
    scores = np.nan_to_num(np.concatenate([part.z_scores for part in parts], axis=1))
    memory = alerts.Memory()
    found = []
    every, newest = round((ALERT_SECONDS + 1) / STEP_SECONDS), round(NEWEST_SECONDS / STEP_SECONDS)
    for end in range(every, len(prices) + 1, every):
        recent = scores[:, max(0, end - newest) : end]
        furthest = recent[np.arange(len(WINDOWS)), np.abs(recent).argmax(axis=1)]
        extremes = {("BTCUSDT", window): float(score) for window, score in zip(WINDOWS, furthest, strict=True)}
        changes = alerts.decide(alerts.score_conditions(extremes, LIMIT), (), memory, 1.0 + end * STEP_SECONDS)
        found += [change.key for change in changes if change.state == "raised"]
    return found


@pytest.mark.parametrize("symbol", ["BTCUSDT", "ETHUSDT"])
@pytest.mark.parametrize("seed", [0, 2])
def test_a_day_of_the_simulator_has_few_alerts(symbol: str, seed: int) -> None:
    assert len(raised(walked(symbol, seed, DAY))) <= 3


@pytest.mark.parametrize("change", [0.02, -0.02])
def test_a_price_that_leaves_its_market_is_told(change: float) -> None:
    prices = walked("BTCUSDT", 0, 2 * HOUR)
    assert raised(prices) == []
    prices[HOUR:] *= 1 + change
    assert "zscore:BTCUSDT:1m" in raised(prices)
