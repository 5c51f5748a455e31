"""The numbers as JSON and as the table of docs/performance.md."""

from __future__ import annotations

import datetime
import json
import os
import platform
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from bench.harness import Result

_PACKAGES = ("detcore", "torch", "torchvision", "pycocotools", "faster-coco-eval")
_HEAD = """# Performance

Measured by `uv run nox -s bench`, which writes this page: every row runs detcore and its peers in turn, each in
a process of its own; times are medians of {repeats} runs. "x" says how many times as long, or as much memory, the
peer takes. Memory is the peak beyond what the process held before its first run of the work, where pages that
were freed before may be used again.

Machine: {machine}.

"""


def machine(threads: int) -> dict[str, Any]:
    """What the numbers were taken on."""
    import torch

    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": threads,
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in _PACKAGES},
    }


def write_json(folder: Path, where: Mapping[str, Any], rows: Mapping[str, Mapping[str, Result]]) -> Path:
    """Writes a file of its own for this run, so that the folder is a history."""
    now = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{now:%Y%m%dT%H%M%SZ}.json"
    results = {row: {name: asdict(result) for name, result in found.items()} for row, found in rows.items()}
    data = {"time": now.isoformat(), "machine": dict(where), "rows": results}
    path.write_text(json.dumps(data, indent=1) + "\n")
    return path


def page(
    where: Mapping[str, Any],
    titles: Mapping[str, str],
    rows: Mapping[str, Mapping[str, Result]],
    repeats: int,
) -> str:
    """docs/performance.md."""
    versions = ", ".join(f"{name} {number}" for name, number in where["versions"].items() if number)
    device = f"{where['accelerator']}, " if where["accelerator"] else ""
    text = (
        f"{device}{where['processor']}, {where['cores']} cores ({where['threads']} threads used), "
        f"{where['memory_gib']} GiB; Python {where['python']}, {versions}"
    )
    head = "| work | detcore | memory | peer | time | x | memory | x |\n|---|---|---|---|---|---|---|---|\n"
    body = "".join(f"{line}\n" for row, found in rows.items() for line in _lines(titles[row], found))
    return _HEAD.format(repeats=repeats, machine=text) + head + body


def _lines(title: str, found: Mapping[str, Result]) -> Iterable[str]:
    ours = found["detcore"]
    own = (ours.failure, "") if ours.failure else (_time(ours.median), _size(ours.memory))
    peers = {name: result for name, result in found.items() if name != "detcore"}
    for i, (name, result) in enumerate(peers.items() or [("", None)]):
        left = (title, *own) if i == 0 else ("", "", "")
        yield f"| {' | '.join((*left, name, *_compared(ours, result)))} |"


def _compared(ours: Result, peer: Result | None) -> tuple[str, str, str, str]:
    if peer is None:
        return "", "", "", ""
    if peer.failure or ours.failure:
        return peer.failure, "", "", ""
    more = f"{peer.memory / ours.memory:.1f}" if ours.memory > 2**20 else ""
    return _time(peer.median), f"{peer.median / ours.median:.2f}", _size(peer.memory), more


def _time(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1e3:.3g} ms"


def _size(number: int) -> str:
    return f"{number / 2**30:.2f} GiB" if number >= 2**30 else f"{number / 2**20:.0f} MiB"


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()
