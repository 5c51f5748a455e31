"""``python -m detcore`` is the command line."""

from detcore.cli import main

main()
