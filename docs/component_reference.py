"""A hook of mkdocs: makes the page of components from what is installed, and writes it nowhere.

It can be run by itself, too: ``python docs/component_reference.py`` prints the page.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from detcore import registry
from detcore.api import INTERFACE_VERSIONS
from detcore.describe import Description, ParameterDescription, describe
from detcore.errors import BrokenPluginError

PAGE = "components.md"


def on_files(files: Any, config: Any) -> Any:
    """Adds the page to the site."""
    from mkdocs.structure.files import File

    files.append(File.generated(config, PAGE, content="\n".join(lines())))
    return files


def lines() -> Iterator[str]:
    """The page, made from the components that are installed."""
    yield "# Components"
    yield ""
    yield "What is installed where this page was made; `detcore show NAME` says the same of what is installed with you."
    for kind in registry.kinds():
        yield f"\n## {kind}\n"
        if kind in INTERFACE_VERSIONS:
            singular = kind if kind == "postprocess" else kind.removesuffix("s")
            page = {"losse": "loss"}.get(singular, singular)
            yield f"[The interface](interfaces/{page}.md).\n"
        for entry in registry.entries(kind):
            try:
                description = describe(registry.current().load(entry))
            except BrokenPluginError as error:
                sys.exit(str(error))
            yield from _component(description)


def _component(description: Description) -> Iterator[str]:
    yield f"### {description.name}\n"
    yield f"{description.summary} {' '.join(f'[arXiv]({link})' for link in description.links)}".rstrip()
    yield f"\n`{description.target}`, {description.distribution}\n"
    if description.parameters:
        yield "| parameter | type | default | |"
        yield "|---|---|---|---|"
    yield from (_row(parameter) for parameter in description.parameters)
    yield ""


def _row(parameter: ParameterDescription) -> str:
    kind = f"{parameter.type}; {parameter.constraint}" if parameter.constraint else parameter.type
    default = (
        f"`{parameter.default}`"
        if parameter.default
        else "*its owner's*"
        if parameter.wired
        else "**required**"
    )
    cells = (f"`{parameter.name}`", f"`{kind}`", default, parameter.doc)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


if __name__ == "__main__":
    sys.stdout.write("\n".join(lines()) + "\n")
