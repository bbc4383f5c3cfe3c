"""``codeset-engine serve``: its flags are made from the settings of the server, its work is the server's."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer.core
import typer.main

__all__ = ["ServeCommand", "serve"]


class ServeCommand(typer.core.TyperCommand):
    """A command with a flag for every setting of ``engine.server.config``, read when it runs or explains itself.

    A flag that is not given is None: the environment or the file may have the setting.
    """

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the flags."""
        return [*_flags(), *super().get_params(ctx)]

    def invoke(self, ctx: Any) -> Any:
        """Serve."""
        flags = dict(ctx.params)
        serve(flags, flags.pop("config"))


def _flags() -> list[Any]:
    """Return the flags as typer makes them of a function that has them as parameters."""
    from ..server.settings import CONFIG_VARIABLE, settings

    def parameters() -> None:
        pass

    named: dict[str, tuple[Any, Any]] = {
        "config": (
            str,
            typer.Option(
                "--config",
                metavar="FILE",
                help=f"TOML file of settings, by the names of their flags. Default: ${CONFIG_VARIABLE}, or none.",
                show_default=False,
            ),
        )
    }
    for setting in settings():
        help_ = setting.help + (f" Default: {setting.default}." if setting.default else "")
        option = typer.Option(setting.flag, metavar=setting.kind or None, help=help_, show_default=False)
        named[setting.name] = (list[str] if setting.repeated else str if setting.kind else bool, option)
    annotations = {name: Annotated[kind | None, option] for name, (kind, option) in named.items()}
    parameters.__annotations__ = annotations
    parameters.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
            for name, annotation in annotations.items()
        ]
    )
    made = typer.Typer(add_completion=False)
    made.command()(parameters)
    return [param for param in typer.main.get_command(made).params if param.name != "help"]


def serve(flags: Mapping[str, Any], config: str | None = None) -> None:
    """Run a server with the settings that ``flags``, the environment and the file ``config`` make, until it is told
    to end.
    """
    from ..server.settings import load

    # A repeated flag that was not given is an empty tuple.
    given = {name: value for name, value in flags.items() if value is not None and value != ()}
    settings = load(given, None if config is None else Path(config))

    if settings.workers > 1:
        from ..server.workers import supervise

        supervise(settings)
        return

    from ..server import serve as run

    run(settings)
