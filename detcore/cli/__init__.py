"""The command line: ``detcore ...``.

The core's own commands load no plugin, so they work (and are quick) with broken plugins installed. Commands of
plugins are added through the hook ``detcore_add_commands``, which is called only when one of them is wanted.
"""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Runs the command line; errors of detcore are printed without a traceback."""
    from detcore.cli import listing
    from detcore.errors import DetcoreError

    try:
        if not listing.quick(sys.argv[1:]):
            from detcore.cli.app import app

            app()
        sys.stdout.flush()
    except DetcoreError as error:
        red, plain = ("\x1b[1;31m", "\x1b[0m") if listing.is_styled(sys.stderr) else ("", "")
        sys.stderr.write(f"{red}{type(error).__name__}{plain}: {error}\n")
        sys.exit(2)
    except BrokenPipeError:  # `detcore list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
