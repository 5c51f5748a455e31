"""One file per family of rows; each has ``ROWS``, by name. Libraries are imported where they are used only."""
