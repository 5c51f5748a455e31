"""The application: the core's commands, and those of plugins once one of them is asked for."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Mapping
from typing import Any

import typer
import typer.main
from typer.core import TyperGroup

from detcore import hooks
from detcore.cli import config_commands, list_commands, schema_command, show_command
from detcore.cli.doctor.command import doctor
from detcore.cli.scaffold.command import new_plugin


class PluginGroup(TyperGroup):
    """A command group that loads plugins only for commands that it does not know itself."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The core's command of that name, else a plugin's."""
        own = super().get_command(ctx, cmd_name)
        return own if own is not None else plugin_commands().get(cmd_name)

    def list_commands(self, ctx: Any) -> list[str]:
        """Every command's name, for the help and for suggestions."""
        return sorted({*super().list_commands(ctx), *plugin_commands()})


@functools.lru_cache(maxsize=1)
def plugin_commands() -> dict[str, Any]:
    """The commands that plugins add, each plugin asked on its own."""
    manager = hooks.manager()
    commands: dict[str, Any] = {}
    for plugin in sorted(manager.get_plugins(), key=lambda plugin: str(manager.get_name(plugin))):
        name = str(manager.get_name(plugin))
        extra = typer.Typer()
        others = [p for p in manager.get_plugins() if p is not plugin]
        try:
            manager.subset_hook_caller("detcore_add_commands", others)(app=extra)
            if extra.registered_commands or extra.registered_groups:
                extra.callback()(lambda: None)  # keeps a single command a command of its own
                _add(commands, typer.main.get_group(extra).commands, name)
        except Exception as cause:
            warnings.warn(f"{name} cannot add its commands: {cause}", hooks.BrokenPluginWarning, stacklevel=2)
    return commands


def _add(commands: dict[str, Any], more: Mapping[str, Any], plugin: str) -> None:
    """Adds a plugin's commands; groups of one name become one, and a command that is there already stays."""
    for name, command in more.items():
        there = commands.setdefault(name, command)
        if there is command:
            continue
        if hasattr(there, "commands") and hasattr(command, "commands"):
            _add(there.commands, command.commands, plugin)
        else:
            warnings.warn(
                f"{plugin} adds the command {name!r}, which another plugin has added already; it is left out",
                hooks.BrokenPluginWarning,
                stacklevel=3,
            )


app = typer.Typer(
    cls=PluginGroup,
    name="detcore",
    help="Typed components for object detection, found through entry points.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from detcore import __version__

        typer.echo(f"detcore {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version."
    ),
) -> None:
    """Typed components for object detection, found through entry points."""


app.command("list")(list_commands.list_components)
app.command("recipes")(list_commands.list_recipes)
app.command("doctor")(doctor)
app.command("show")(show_command.show)
app.command("new-plugin")(new_plugin)
app.command("schema")(schema_command.schema)
app.add_typer(config_commands.app, name="config")
