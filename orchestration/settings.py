"""The settings of the orchestration package: environment variables with prefix TICKHOUSE_, read once."""

import json
import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import NoDecode, SettingsConfigDict

from orchestration.mongo_address import without_secrets
from producer.recordings.errors import RecordingError
from producer.recordings.location import path_of
from tickhouse.contract.names import SYMBOL_PATTERN
from tickhouse.environment import PREFIX, in_the_cloud
from tickhouse.files import write_json
from tickhouse.kafka.settings import KafkaSettings
from tickhouse.settings import LocationSetting, PathSetting, absolute

PROJECT_ROOT = Path(__file__).resolve().parents[1]
ENDPOINTS = "endpoints.json"

AbsolutePath = Annotated[PathSetting, AfterValidator(absolute)]
Port = Annotated[int, Field(ge=0, le=65535)]


class SettingsError(ValueError):
    """A setting has no valid value; the text names the variable and what it may be."""


class Endpoints(BaseModel):
    """What a running stack has chosen, kept in `<home>/endpoints.json` for every command that comes later."""

    model_config = ConfigDict(extra="ignore")

    kafka_bootstrap: str
    mongo_uri: Annotated[str, AfterValidator(without_secrets)]
    """Without user and password: who needs these has them from the environment, and no file has them."""
    lakehouse: str
    checkpoints: str
    dagster_url: str | None = None
    board_url: str | None = None
    source: str
    source_note: str | None = None
    binance_url: str | None = None
    symbols: list[str] = []
    speed: str = "1"
    lateness_seconds: float = 10


class OrchestrationSettings(KafkaSettings):
    """Everything the stack can be told. Paths are absolute; `lakehouse` and `checkpoints` are URIs or paths."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="ignore")

    home: AbsolutePath = Field(default=Path(".tickhouse"), validate_default=True)
    """Folder of all data of a stack; for more than one, one each."""
    tools: AbsolutePath = Field(default=PROJECT_ROOT / ".tools", validate_default=True)
    """Folder of the JARs and of mongod, which the first start fetches."""
    jars: AbsolutePath = Path()
    """Folder with the JARs of Delta and of the Kafka connector; `spark-jars` under the tools when left out."""
    mongo_uri: SecretStr = SecretStr("mongodb://127.0.0.1:27017/?journal=true")
    """With user and password (`authSource`) and TLS (`tls=true&tlsCAFile=…`) where the server asks for them."""
    lakehouse: LocationSetting = Field("", validate_default=False)
    """URI of the folder of the Delta tables; under the home when left out."""
    checkpoints: LocationSetting = Field("", validate_default=False)
    """URI of the folder of the streams' checkpoints; under the home when left out."""
    keep_environment: str = ""
    """Names of environment variables that all programs of the stack get beside those that they get anyway, separated by
    commas."""
    port: Port = 3000
    """Port of the Dagster UI on 127.0.0.1; 0 gives every service any free port."""
    board_port: Port = 8501
    """Port of the board on 127.0.0.1."""
    kafka_port: Port = 9092
    """Port of the local broker on 127.0.0.1."""
    mongo_port: Port = 27017
    """Port of the local mongod on 127.0.0.1."""
    source: str = "auto"
    """`auto` (Binance if it answers, else the simulator), `binance`, `simulator` or `replay:FILE`."""
    binance_url: str | None = None
    """Where the exchange is asked; Binance's own address when left out."""
    symbols: Annotated[list[str], NoDecode] = Field(["BTCUSDT"])
    """Trading pairs, separated by commas."""
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
    step_ms: Annotated[int, Field(ge=1)] = 100
    """Milliseconds from one poll to the next."""
    lateness_seconds: Annotated[float, Field(ge=0)] = 10
    """How far behind a symbol's largest timestamp a tick may be."""
    durable: bool = False
    """Whether everything is forced to disk before it counts, so that a power cut loses nothing; costs delay."""
    trigger: Literal["continuous", "available_now"] = "continuous"
    """`continuous`: until stopped. `available_now`: the streams process what the topics hold at the start, and end."""
    alert_webhook: SecretStr = SecretStr("")
    """Where alerts are posted to as JSON `{"text": …}`, as Slack takes them; empty = nowhere. A secret."""
    alert_zscore: Annotated[float, Field(gt=0)] = 11
    """From which |z| on a symbol and window is worth an alert."""
    alert_stale_seconds: Annotated[float, Field(ge=5)] = 60
    """How long no new tick may come from a source that should be sending."""

    mongo_retention_days: Annotated[int, Field(ge=0)] = 0
    """For how many days before the day of each symbol's newest row its documents in MongoDB are kept; 0 = for ever. The
    Delta tables keep their rows in any case."""

    @field_validator("symbols", mode="before")
    @classmethod
    def _symbols(cls, value: Any) -> Any:
        return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value

    @field_validator("symbols")
    @classmethod
    def _symbol_names(cls, value: list[str]) -> list[str]:
        if not value or not all(re.fullmatch(SYMBOL_PATTERN, symbol) for symbol in value):
            raise ValueError("needs symbols such as BTCUSDT,ETHUSDT: capital letters, digits, ._-, kana, Han, Hangul")
        return list(dict.fromkeys(value))

    @field_validator("mongo_uri")
    @classmethod
    def _connection_string(cls, value: SecretStr) -> SecretStr:
        if not re.match(r"mongodb(\+srv)?://[^/]", value.get_secret_value()):
            raise ValueError("is an address such as mongodb://127.0.0.1:27017/?journal=true")
        return value

    @field_validator("alert_webhook")
    @classmethod
    def _web_address(cls, value: SecretStr) -> SecretStr:
        if value.get_secret_value() and not re.match(r"https?://[^/\s]+(/\S*)?$", value.get_secret_value()):
            raise ValueError("is an address that begins with http:// or https://")
        return value

    @field_validator("source")
    @classmethod
    def _source(cls, value: str) -> str:
        if value in ("auto", "binance", "simulator"):
            return value
        kind, _, file = value.partition(":")
        if kind != "replay" or not file:
            raise ValueError("is one of auto, binance, simulator or replay:FILE")
        try:
            return f"replay:{path_of(file)}"
        except RecordingError as error:
            raise ValueError(str(error)) from error

    @property
    def replay_file(self) -> Path | None:
        """The recording that is the source; None when it is none."""
        kind, _, file = self.source.partition(":")
        return Path(file) if kind == "replay" else None

    @field_validator("speed")
    @classmethod
    def _speed(cls, value: str) -> str:
        # The producer's own rule, so that what is accepted here is not refused there.
        if value == "max" or (re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,6})?", value) and float(value) > 0):
            return value
        raise ValueError("is 1, a factor such as 10, or max")

    @model_validator(mode="after")
    def _below_home(self) -> Self:
        if "jars" not in self.model_fields_set:
            self.jars = self.tools / "spark-jars"
        # Programs of the stack run in its home, so that nothing may depend on the current folder.
        self.lakehouse = _absolute(self.lakehouse) or str(self.home / "lakehouse")
        self.checkpoints = _absolute(self.checkpoints) or str(self.home / "checkpoints")
        self.kafka_ca_file = self.kafka_ca_file and self.kafka_ca_file.absolute()
        return self

    @property
    def in_the_cloud(self) -> bool:
        """Whether tables or checkpoints are elsewhere than on a disk of this machine."""
        return in_the_cloud(self.lakehouse, self.checkpoints)

    @classmethod
    def read(cls, *, of_running_stack: bool = True, **overrides: Any) -> Self:
        """Settings from the environment; `overrides` that are not None win (command line options).

        Addresses, and the lateness, that neither names are taken from `<home>/endpoints.json`, so that `status --home
        DIR` finds the stack of that home wherever it listens; not with `of_running_stack` False, for a stack that is
        yet to start. Raises SettingsError naming the variable that is wrong.
        """
        given = {name: value for name, value in overrides.items() if value is not None}
        try:
            settings = cls(**given)
            endpoints = read_endpoints(settings.home) if of_running_stack else None
            if endpoints is None:
                return settings
            chosen = endpoints.model_dump(
                include={"kafka_bootstrap", "mongo_uri", "lakehouse", "checkpoints", "lateness_seconds"}
            )
            unsaid = {name: value for name, value in chosen.items() if f"{PREFIX}{name.upper()}" not in os.environ}
            return cls(**(unsaid | given))
        except ValidationError as error:
            raise SettingsError(_sentence(error)) from error


def read_endpoints(home: Path) -> Endpoints | None:
    """The addresses chosen by the stack of that home; None when it was never started."""
    path = home / ENDPOINTS
    try:
        return Endpoints.model_validate(json.loads(path.read_bytes()))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        raise SettingsError(f"{path} is damaged; remove it and run `tickhouse up` again") from error


def write_endpoints(home: Path, endpoints: Endpoints) -> None:
    """Replace the addresses of that home in one step."""
    write_json(home / ENDPOINTS, endpoints.model_dump())


def _absolute(uri: str) -> str:
    """A URI, or a path made absolute; empty stays empty."""
    return uri if not uri or re.match(r"[A-Za-z][A-Za-z0-9+.-]+:", uri) else str(Path(uri).absolute())


def _sentence(error: ValidationError) -> str:
    told = []
    for problem in error.errors():
        field = str(problem["loc"][0])
        secret = OrchestrationSettings.model_fields[field].annotation is SecretStr
        value = "" if secret else f"={problem['input']!r}"
        told.append(f"{PREFIX}{field.upper()}{value}: {problem['msg'].removeprefix('Value error, ')}")
    return "; ".join(told)
