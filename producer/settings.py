"""Settings of the producer, read once from `TICKHOUSE_…` environment variables."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from tickhouse.contract.names import SYMBOL_PATTERN
from tickhouse.kafka.settings import KafkaSettings
from tickhouse.settings import PathSetting

REPLAY_PREFIX = "replay:"


class ProducerSettings(KafkaSettings):
    """What the producer needs to know. Raises pydantic's ValidationError naming what is wrong."""

    model_config = SettingsConfigDict(env_prefix="TICKHOUSE_", extra="ignore")

    home: PathSetting = Path(".tickhouse")
    """Folder that the heartbeat is written under."""
    ticks_topic: str = "btc-price"
    """The topic; the stream jobs read `btc-price`, so another name is of use only in tests."""
    source: str = "binance"
    """`binance`, or `replay:` and the path of a recording."""
    binance_url: str = "https://api.binance.com"
    """Where `/api/v3/ticker/price` is asked for; the simulator's address for a run without the internet."""
    symbols: Annotated[tuple[str, ...], NoDecode] = ("BTCUSDT",)
    """Trading pairs whose prices are asked for, separated by commas."""
    step_ms: int = Field(100, ge=1, le=3_600_000)
    """Milliseconds from one poll to the next; times of receipt are floored to it."""
    answer_seconds: float = Field(5, ge=0.1, le=60)
    """How long the exchange may take for one answer, from the look-up of its name to the last byte."""
    speed: str = "1"
    """How fast a recording is replayed: `1` as recorded, `N` times that, `max` as fast as it goes."""
    replay_timestamps: Literal["recorded", "now"] = "recorded"
    """Whether a replay keeps its timestamps or shifts all of them so that the first tick's is now."""
    replay_symbol: str = ""
    """The symbol of a recording of Binance's archive whose file name does not tell it."""
    replay_name: str = ""
    """What messages call a recording that was read from a pipe; its path when left out."""
    replay_sort: bool = False
    """Whether a recording is put in the order of its timestamps before it is sent."""
    lateness_seconds: float = Field(10, ge=0)
    """How far behind a symbol's largest timestamp a tick may be; what is said of a recording depends on it."""
    broker_wait_seconds: float = Field(120, gt=0)
    """How long to wait at the start for the broker and the topic."""
    delivery_seconds: float = Field(1_800, ge=60)
    """How long a message may wait for a broker that went away before the producer gives up."""
    flush_seconds: float = Field(15, gt=0)
    """How long a stop waits for the messages that are not acknowledged yet."""
    buffer_messages: int = Field(100_000, ge=1)
    """How many messages may wait for the broker; when that many do, no more are taken from the source."""

    @field_validator("symbols", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        return tuple(part.strip().upper() for part in value.split(",") if part.strip())

    @field_validator("symbols")
    @classmethod
    def _symbol_names(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value or not all(re.fullmatch(SYMBOL_PATTERN, symbol) for symbol in value):
            raise ValueError("needs symbols such as BTCUSDT,ETHUSDT: letters, digits, dot, underscore, hyphen")
        return tuple(dict.fromkeys(value))

    @field_validator("source")
    @classmethod
    def _known_source(cls, value: str) -> str:
        if value != "binance" and not (value.startswith(REPLAY_PREFIX) and value != REPLAY_PREFIX):
            raise ValueError("must be binance or replay:FILE")
        return value

    @field_validator("speed")
    @classmethod
    def _positive_speed(cls, value: str) -> str:
        # No exponents, infinities or the like: what is written is what is meant.
        if value != "max" and not (re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,6})?", value) and float(value) > 0):
            raise ValueError("must be max or a number above 0, such as 1 or 20")
        return value

    @field_validator("binance_url")
    @classmethod
    def _web_address(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise ValueError("must be an http:// or https:// address, such as https://api.binance.com")
        return value.rstrip("/")

    @property
    def replay_file(self) -> Path | None:
        """The recording to replay, or None when prices are polled."""
        return Path(self.source.removeprefix(REPLAY_PREFIX)) if self.source.startswith(REPLAY_PREFIX) else None

    @property
    def speed_factor(self) -> float | None:
        """Recorded seconds per second, or None for as fast as it goes."""
        return None if self.speed == "max" else float(self.speed)
