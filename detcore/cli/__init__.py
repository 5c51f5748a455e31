"""The command line: ``detcore ...``.

The core's own commands load no plugin, so they work (and are quick) with broken plugins installed. Commands of
plugins are added through the hook ``detcore_add_commands``, which is called only when one of them is wanted.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Runs the command line; errors of detcore are printed without a traceback."""
    from detcore.cli.app import app
    from detcore.errors import DetcoreError

    try:
        app()
    except DetcoreError as error:
        from rich.console import Console

        Console(stderr=True).print(f"[bold red]{type(error).__name__}[/]: ", end="")
        sys.stderr.write(f"{error}\n")
        sys.exit(2)
