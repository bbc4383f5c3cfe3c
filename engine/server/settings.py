"""Where a server's settings come from: flags, else the environment, else a file, else the default.

The environment has a setting ``max_items`` as ``CODESET_ENGINE_MAX_ITEMS``; the file, TOML, as ``max_items = 5000``.
The table in docs/server.md is what ``python -m engine.server.settings`` prints.
"""

from __future__ import annotations

import os
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple, get_args

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from ..errors import InvalidFieldError
from .config import ServerConfig

__all__ = ["CONFIG_VARIABLE", "PREFIX", "Setting", "load", "settings", "table"]

PREFIX: Final = "CODESET_ENGINE_"

CONFIG_VARIABLE: Final = "CODESET_ENGINE_CONFIG"
"""Names the file where no flag does."""


class _Settings(ServerConfig, BaseSettings):
    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return the sources, the strongest first."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)


def load(flags: Mapping[str, Any] | None = None, config: Path | None = None) -> ServerConfig:
    """Return the configuration that flags, environment and file make.

    ``flags``: settings given on the command line; None stands for one not given. ``config``: the file; None: the one
    that $CODESET_ENGINE_CONFIG names, or none. Raises InvalidFieldError, and AddressUnavailableError as ServerConfig
    does.
    """
    given = {name: value for name, value in (flags or {}).items() if value is not None}
    if config is None and os.environ.get(CONFIG_VARIABLE):
        config = Path(os.environ[CONFIG_VARIABLE])
    if config is not None:
        try:
            tomllib.loads(config.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InvalidFieldError(f"config: {config} cannot be read as TOML: {error}", field="config") from None

    class Loaded(_Settings):
        model_config = SettingsConfigDict(toml_file=config)

    # As what it is: what a file or the environment says is settled from here on.
    return ServerConfig(**Loaded(**given).model_dump())


class Setting(NamedTuple):
    """One setting as a flag. ``flag``: "--max-items", or "--verify/--lazy". ``kind``: of its value, in capitals; empty
    for a switch. ``default``: as text, empty for none. ``repeated``: may be given several times.
    """

    name: str
    flag: str
    kind: str
    default: str
    help: str
    repeated: bool

    @property
    def variable(self) -> str:
        """``CODESET_ENGINE_MAX_ITEMS``."""
        return PREFIX + self.name.upper()


def settings() -> list[Setting]:
    """Return every setting, in the order of the documentation."""
    return [_setting(name, field) for name, field in ServerConfig.model_fields.items()]


def _setting(name: str, field: FieldInfo) -> Setting:
    extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
    types = {field.annotation, *get_args(field.annotation)}
    kinds = {bool: "", int: "N", float: "SECONDS", Path: "FILE", str: "TEXT"}
    kind = next((word for kind, word in kinds.items() if kind in types), "TEXT")
    if name == "store":
        kind = "DIR"
    default = field.default
    shown = "" if default is None or name == "threads" else _shown(default)
    return Setting(
        name,
        str(extra.get("flag", f"--{name.replace('_', '-')}")),
        "SYSTEM[/RELEASE]" if name == "releases" else kind,
        shown,
        field.description or "",
        name == "releases",
    )


def _shown(default: Any) -> str:
    if isinstance(default, bool):
        return "on" if default else "off"
    # A port is a name, not a number of things.
    return f"{default:g}" if isinstance(default, float) else str(default)


def table() -> str:
    """Return the settings as a table in Markdown."""
    rows = ["| flag | default | |", "|---|---|---|"]
    for setting in settings():
        flag = " ".join(filter(None, (setting.flag, setting.kind)))
        rows.append(f"| `{flag}` | {setting.default} | {setting.help} |")
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    sys.stdout.write(table())
