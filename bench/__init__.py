"""Speed and memory of detcore and its peers, side by side. ``uv run nox -s bench`` runs all of it."""
