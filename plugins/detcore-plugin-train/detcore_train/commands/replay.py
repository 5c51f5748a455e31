"""``detcore replay``."""

from __future__ import annotations

import sys
from pathlib import Path

from rich.console import Console

from detcore_train.bad_batch import read_bad_batch
from detcore_train.commands.common import check_accelerator, progress_bar
from detcore_train.replaying.replay import replay
from detcore_train.replaying.report import show, to_json, write_pictures


def run(folder: Path, *, out: Path | None, as_json: bool, device: str) -> None:
    """Computes again, prints, writes; see the command's own help. Exits with 1 where it is not finite again."""
    console = Console(stderr=as_json)
    device = check_accelerator(device, "--device")
    kept = read_bad_batch(folder)
    with progress_bar(console, "computing again", 1 + len(kept.batch)) as advance:
        done = replay(kept, device, advance)
    out = out or folder / "replay"
    pictures = write_pictures(kept.batch, kept.detector().class_map.names, out)
    (out / "replay.json").write_text(to_json(done) + "\n", encoding="utf-8")
    if as_json:
        print(to_json(done))  # noqa: T201 - exactly this
    else:
        show(done, console)
        console.print(f"{len(pictures)} pictures and replay.json: {out}", soft_wrap=True)
    if done.bad:
        sys.exit(1)
