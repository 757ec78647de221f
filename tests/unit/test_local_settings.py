"""Settings of the orchestration package: defaults, refusals, and the addresses of a running stack."""

from pathlib import Path

import pytest

from orchestration.settings import Endpoints, OrchestrationSettings, SettingsError, read_endpoints, write_endpoints


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import os

    for name in [name for name in os.environ if name.startswith("TICKHOUSE_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def test_everything_lies_below_the_home(tmp_path: Path) -> None:
    settings = OrchestrationSettings.read(home=Path("there"))
    assert settings.home == tmp_path / "there"
    assert settings.lakehouse == str(tmp_path / "there" / "lakehouse")
    assert settings.checkpoints == str(tmp_path / "there" / "checkpoints")
    assert settings.jars == settings.tools / "spark-jars"
    assert OrchestrationSettings.read().home == tmp_path / ".tickhouse"


def test_the_command_line_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TICKHOUSE_PORT", "4000")
    monkeypatch.setenv("TICKHOUSE_SYMBOLS", "BTCUSDT, ETHUSDT,BTCUSDT")
    assert OrchestrationSettings.read().port == 4000
    assert OrchestrationSettings.read(port=0).port == 0
    assert OrchestrationSettings.read(port=None).port == 4000
    assert OrchestrationSettings.read().symbols == ["BTCUSDT", "ETHUSDT"]
    assert OrchestrationSettings.read(symbols="ETHUSDT").symbols == ["ETHUSDT"]


def test_a_replayed_file_is_named_absolutely(tmp_path: Path) -> None:
    assert OrchestrationSettings.read(source="replay:a.jsonl").source == f"replay:{tmp_path}/a.jsonl"
    assert OrchestrationSettings.read(source="replay:-").replay_file == Path("/dev/stdin")
    assert OrchestrationSettings.read(source="simulator").replay_file is None


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("SOURCE", "kraken", "auto, binance, simulator or replay:FILE"),
        ("SOURCE", "replay:", "auto, binance, simulator or replay:FILE"),
        ("SOURCE", "replay:https://data.binance.vision/a.zip", "download the file first"),
        ("SPEED", "fast", "1, a factor such as 10, or max"),
        ("SPEED", "0", "1, a factor such as 10, or max"),
        ("SPEED", "nan", "1, a factor such as 10, or max"),
        ("SPEED", "1e3", "1, a factor such as 10, or max"),
        ("SYMBOLS", "btcusdt", "BTCUSDT,ETHUSDT"),
        ("SYMBOLS", ",", "BTCUSDT,ETHUSDT"),
        ("PORT", "70000", "less than or equal to 65535"),
        ("PORT", "http", "integer"),
        ("TRIGGER", "sometimes", "continuous"),
        ("LATENESS_SECONDS", "-1", "greater than or equal to 0"),
    ],
)
def test_a_wrong_value_is_told_with_its_variable(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, told: str
) -> None:
    monkeypatch.setenv(f"TICKHOUSE_{name}", value)
    with pytest.raises(SettingsError) as refusal:
        OrchestrationSettings.read()
    assert f"TICKHOUSE_{name}=" in str(refusal.value)
    assert told in str(refusal.value)


def test_later_commands_find_the_running_stack_unless_told_otherwise(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    endpoints = Endpoints(
        kafka_bootstrap="127.0.0.1:1234",
        mongo_uri="mongodb://127.0.0.1:2345/?journal=true",
        lakehouse="/elsewhere/lakehouse",
        checkpoints="/elsewhere/checkpoints",
        source="simulator",
    )
    assert read_endpoints(tmp_path) is None
    write_endpoints(tmp_path, endpoints)
    assert read_endpoints(tmp_path) == endpoints
    settings = OrchestrationSettings.read(home=tmp_path)
    assert (settings.kafka_bootstrap, settings.lakehouse) == ("127.0.0.1:1234", "/elsewhere/lakehouse")
    monkeypatch.setenv("TICKHOUSE_KAFKA_BOOTSTRAP", "127.0.0.1:9999")
    settings = OrchestrationSettings.read(home=tmp_path)
    assert settings.kafka_bootstrap == "127.0.0.1:9999"
    assert settings.mongo_uri.get_secret_value() == endpoints.mongo_uri


def test_a_wrong_connection_string_is_told_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TICKHOUSE_MONGO_URI", "anna:Pl4nted7d1f@db")
    with pytest.raises(SettingsError, match="TICKHOUSE_MONGO_URI: is an address such as mongodb://") as refusal:
        OrchestrationSettings.read()
    assert "Pl4nted7d1f" not in str(refusal.value)
    monkeypatch.setenv("TICKHOUSE_MONGO_URI", "mongodb://{}:Pl4nted7d1f@db/".format("anna"))  # pragma: allowlist secret
    assert "Pl4nted7d1f" not in repr(OrchestrationSettings.read())


def test_damaged_addresses_are_told(tmp_path: Path) -> None:
    (tmp_path / "endpoints.json").write_text("{")
    with pytest.raises(SettingsError, match="run `tickhouse up` again"):
        OrchestrationSettings.read(home=tmp_path)
