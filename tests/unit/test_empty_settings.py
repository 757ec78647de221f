"""An empty variable: left out, except where a path is asked for, as an empty path would be the current folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from orchestration.settings import OrchestrationSettings, SettingsError
from producer.settings import ProducerSettings
from spark_jobs.settings import StreamSettings
from tickhouse.settings import Settings

OBJECTS = (OrchestrationSettings, StreamSettings, ProducerSettings)
PATHS = {"lakehouse", "checkpoints"}
"""Those that are not of the type Path, as they may be URIs."""
CASES = [(settings, name) for settings in OBJECTS for name in settings.model_fields]


def is_path(settings: type[Settings], name: str) -> bool:
    return name in PATHS or "Path" in str(settings.model_fields[name].annotation)


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("TICKHOUSE_")]:
        monkeypatch.delenv(name)


@pytest.mark.parametrize(("settings", "name"), CASES)
def test_an_empty_variable(settings: type[Settings], name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    default = settings()
    monkeypatch.setenv(f"TICKHOUSE_{name.upper()}", "")
    if is_path(settings, name):
        with pytest.raises(ValidationError, match="is empty: name a file or folder"):
            settings()
    else:
        assert settings() == default


def test_an_empty_argument_is_told_with_its_variable() -> None:
    for name in ("home", "tools", "jars", "lakehouse", "checkpoints"):
        with pytest.raises(SettingsError, match=f"TICKHOUSE_{name.upper()}='': is empty: name a file or folder"):
            OrchestrationSettings.read(**{name: ""})  # type: ignore[arg-type]


def test_the_home_of_a_user_that_there_is_not() -> None:
    for setting in ({"home": "~nobody-of-that-name/x"}, {"source": "replay:~nobody-of-that-name/x"}):
        with pytest.raises(SettingsError, match=r"begins with a user that there is not: write \./~nobody"):
            OrchestrationSettings.read(**setting)  # type: ignore[arg-type]


def test_the_current_folder_is_named_by_a_dot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert OrchestrationSettings.read(home=".").home == tmp_path
