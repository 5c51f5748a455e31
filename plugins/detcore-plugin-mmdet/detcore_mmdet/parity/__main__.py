"""``python -m detcore_mmdet.parity [FILE]``: writes the table of parity."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from detcore.testing import goldens
from detcore_mmdet.parity.table import write_table


def main() -> int:
    """Writes the table to the file that is named, or to docs/parity.md."""
    if goldens.missing():
        sys.stderr.write(goldens.missing() + "\n")
        return 1
    torch.set_num_threads(1)

    def progress(name: str) -> None:
        if sys.stderr.isatty():
            sys.stderr.write(f"\r\x1b[K{name}")

    path = Path(sys.argv[1] if len(sys.argv) > 1 else "docs/parity.md")
    path.write_text(write_table(progress=progress), encoding="utf-8")
    sys.stderr.write(f"\n{path}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
