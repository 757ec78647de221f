"""Made-up prices: a seeded random walk on a symbol's tick grid, with flat stretches and jumps."""

from __future__ import annotations

import random
from decimal import Decimal
from typing import NamedTuple

STEP_SECONDS = 0.1

_FLAT_CHANCE = 0.02  # per step, of beginning a flat stretch
_FLAT_STEPS = (5, 40)  # its length: 0.5 to 4 s, as in quiet stretches of a busy market
_JUMP_CHANCE = 0.001  # per step: one in 100 s or so
_JUMP = (0.0002, 0.0011)  # its size, relative: the largest in ten minutes of Bitcoin was 0.095 %
_USUAL = 0.00004  # standard deviation of a usual step, relative
_RETURN = 0.0002  # share of the distance from the first price that a step takes back: the walk stays in sight


class Instrument(NamedTuple):
    """A symbol's first price and tick size, as decimal texts."""

    price: str
    tick: str


CATALOGUE: dict[str, Instrument] = {
    "ADAUSDT": Instrument("0.7012", "0.0001"),
    "ATOMUSDT": Instrument("4.312", "0.001"),
    "AVAXUSDT": Instrument("21.94", "0.01"),
    "BCHUSDT": Instrument("391.6", "0.1"),
    "BNBUSDT": Instrument("604.12", "0.01"),
    "BTCUSDT": Instrument("99190.48", "0.01"),
    "DOGEUSDT": Instrument("0.18213", "0.00001"),
    "DOTUSDT": Instrument("4.213", "0.001"),
    "ETHBTC": Instrument("0.01951", "0.00001"),
    "ETHUSDT": Instrument("1934.27", "0.01"),
    "LINKUSDT": Instrument("14.62", "0.01"),
    "LTCUSDT": Instrument("88.31", "0.01"),
    "SHIBUSDT": Instrument("0.00001312", "0.00000001"),
    "SOLUSDT": Instrument("152.38", "0.01"),
    "TRXUSDT": Instrument("0.2501", "0.0001"),
    "XRPUSDT": Instrument("2.1874", "0.0001"),
}


class Walk:
    """The prices of one symbol by step number. The same seed and symbol give the same prices."""

    def __init__(self, symbol: str, instrument: Instrument, seed: int) -> None:
        self._random = random.Random(f"{seed} {symbol}")  # noqa: S311 - repeatable on purpose
        self._tick = Decimal(instrument.tick)
        self._first = int(Decimal(instrument.price) / self._tick)
        self._units = self._first
        self._step = 0
        self._flat_until = 0

    def price_at(self, step: int) -> str:
        """The price at a step, with as many decimals as the tick size; steps may not go back."""
        while self._step < step:
            self._step += 1
            self._advance()
        return format(self._units * self._tick, "f")

    def _advance(self) -> None:
        chance = self._random
        if self._step < self._flat_until:
            return
        if chance.random() < _FLAT_CHANCE:
            self._flat_until = self._step + chance.randint(*_FLAT_STEPS)
            return
        change = chance.gauss(0, _USUAL) * self._units + _RETURN * (self._first - self._units)
        if chance.random() < _JUMP_CHANCE:
            change += chance.choice((-1, 1)) * chance.uniform(*_JUMP) * self._units
        # The part below one unit is decided by chance, else a coarse grid would hardly ever move.
        self._units = max(1, self._units + int(change // 1) + (chance.random() < change % 1))
