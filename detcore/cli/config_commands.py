"""``detcore config``: looking at configurations."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from detcore.config import Config

app = typer.Typer(help="Look at configuration files.", no_args_is_help=True)

FILE = typer.Argument(help="A .yaml, .toml or .json file, or a recipe's name.")
OVERRIDES = typer.Argument(None, help="key.path=value, each replacing one value.")


@app.command()
def show(
    file: str = FILE,
    overrides: list[str] = OVERRIDES,
    raw: bool = typer.Option(False, "--raw", help="Only what is written, without defaults and validation."),
) -> None:
    """Prints a configuration resolved and complete, with the origin of every value."""
    from detcore.config import load

    config = load(file, overrides or [])
    data = config.data if raw else _complete(config)
    for line, origin in _lines(data, "", 0, config.origins):
        typer.echo(f"{line:<56}  # {origin}" if origin else line)


@app.command()
def check(file: str = FILE, overrides: list[str] = OVERRIDES) -> None:
    """Validates a configuration: every key, value and component name in it."""
    from detcore.config import load

    _complete(load(file, overrides or []))
    typer.echo(f"{file}: ok")


def _complete(config: Config) -> dict[str, Any]:
    from detcore.serialize import as_spec, dump, locating_problems

    with locating_problems(config):
        return dump(as_spec(config.data))


def _lines(value: Any, path: str, depth: int, origins: dict[str, str]) -> Iterator[tuple[str, str]]:
    """The value as YAML lines, each scalar's with its origin."""
    pad = "  " * depth
    for key, item in value.items():
        here = f"{path}.{key}" if path else str(key)
        if isinstance(item, dict) and item:
            yield f"{pad}{key}:", ""
            yield from _lines(item, here, depth + 1, origins)
        elif isinstance(item, list) and any(isinstance(part, dict) for part in item):
            yield f"{pad}{key}:", ""
            yield from _list_lines(item, here, depth + 1, origins)
        else:
            yield f"{pad}{key}: {_inline(item)}", _origin(here, origins)


def _list_lines(
    items: list[Any], path: str, depth: int, origins: dict[str, str]
) -> Iterator[tuple[str, str]]:
    for index, item in enumerate(items):
        marker = "  " * (depth - 1) + "- "
        if not isinstance(item, dict):
            yield f"{marker}{_inline(item)}", _origin(f"{path}.{index}", origins)
            continue
        for position, (line, origin) in enumerate(_lines(item, f"{path}.{index}", depth, origins)):
            yield (marker + line[len(marker) :] if position == 0 else line), origin


def _inline(value: Any) -> str:
    import yaml

    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10_000)
    return text.removesuffix("\n").removesuffix("\n...")


def _origin(path: str, origins: dict[str, str]) -> str:
    """Where a value was written; a value inside a collection written as a whole has the collection's origin."""
    if path in origins:
        return origins[path]
    below = [origin for key, origin in origins.items() if key.startswith(f"{path}.")]
    return below[0] if below else "default"
