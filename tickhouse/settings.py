"""What the settings objects of all packages share: paths that must say something, and how the environment is read."""

from __future__ import annotations

from argparse import ArgumentTypeError
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource


def _not_empty(value: Any) -> Any:
    if value == "":
        raise ValueError("is empty: name a file or folder, or leave it out")
    return value


def absolute(path: Path) -> Path:
    """The path from the root, `~` included. Raises ValueError for a user that there is not."""
    try:
        return path.expanduser().absolute()
    except RuntimeError as error:
        raise ValueError(f"begins with a user that there is not: write ./{path} for a folder of that name") from error


def path_argument(text: str) -> Path:
    """A path on a command line; raises ArgumentTypeError, which is argparse's, when it is empty."""
    try:
        return Path(_not_empty(text))
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from error


_NOT_EMPTY = BeforeValidator(_not_empty)

PathSetting = Annotated[Path, _NOT_EMPTY]
"""A path. An empty one, which would be the current folder, is a mistake: a variable of a script that was not set."""
OptionalPathSetting = Annotated[Path | None, _NOT_EMPTY]
LocationSetting = Annotated[str, _NOT_EMPTY]
"""A path or URI, in the same way."""


class Environment(EnvSettingsSource):
    """The environment, where an empty variable counts as left out, unless it is to name a path."""

    def __call__(self) -> dict[str, Any]:
        """What is set, by the name of the field."""
        fields = self.settings_cls.model_fields
        return {
            name: value
            for name, value in super().__call__().items()
            if value != "" or (name in fields and _NOT_EMPTY in fields[name].metadata)
        }


class Settings(BaseSettings):
    """Settings from arguments, and else from the environment."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Where values come from, the first before the second; no file is read."""
        return init_settings, Environment(settings_cls)
