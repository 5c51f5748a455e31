"""The numbers as JSON and as the table of docs/performance.md."""

from __future__ import annotations

import datetime
import json
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from bench.harness import Result
from bench.roofline import HEAVY
from bench.row import Row

_PACKAGES = ("detcore", "torch", "torchvision", "pycocotools", "faster-coco-eval")
#: Written by hand.
_HEAD = Path(__file__).with_name("page_head.md")
_COLUMNS = ("work", "detcore", "memory", "peer", "time", "x", "memory", "x", "target")


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


@dataclass
class Record:
    """The numbers of one run and the JSON file that has them: a file for each run, so that the folder is a history.

    Args:
        path: The file.
        machine: From :func:`machine`.
        rows: Row -> contender -> numbers.
    """

    path: Path
    machine: dict[str, Any]
    rows: dict[str, dict[str, Result]] = field(default_factory=dict)

    @classmethod
    def begun(cls, folder: Path, where: dict[str, Any], earlier: Path | None = None) -> Record:
        """A new one in a folder, or one that goes on with an earlier run's file.

        Raises:
            ValueError: The earlier run was on another machine, or with other versions.
        """
        if earlier is None:
            return cls(folder / f"{datetime.datetime.now(datetime.UTC):%Y%m%dT%H%M%SZ}.json", where)
        data = json.loads(earlier.read_text())
        if data["machine"] != where:
            raise ValueError(f"{earlier} was measured on {data['machine']}, this is {where}")
        rows = {
            row: {
                name: Result(tuple(one["seconds"]), one["memory"], one["failure"])
                for name, one in found.items()
            }
            for row, found in data["rows"].items()
        }
        return cls(earlier, where, rows)

    def add(self, row: str, found: dict[str, Result]) -> None:
        """Takes a row's numbers in and writes the file."""
        self.rows[row] = found
        results = {
            row: {name: asdict(one) for name, one in found.items()} for row, found in self.rows.items()
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps({"machine": self.machine, "rows": results}, indent=1) + "\n")


def page(
    where: Mapping[str, Any],
    rows: Mapping[str, Row],
    results: Mapping[str, Mapping[str, Result]],
    repeats: int,
    roof: Mapping[str, float] | None = None,
) -> str:
    """docs/performance.md: what is written by hand, then the machine, the table, what was missed, and the roofline.

    Args:
        where: From :func:`machine`.
        rows: What was measured.
        results: What was found.
        repeats: Timed runs, where a row does not say otherwise.
        roof: From :func:`bench.roofline.measure`.
    """
    versions = ", ".join(f"{name} {number}" for name, number in where["versions"].items() if number)
    device = f"{where['accelerator']}, " if where["accelerator"] else ""
    text = (
        f"{device}{where['processor']}, {where['cores']} cores ({where['threads']} threads used), "
        f"{where['memory_gib']} GiB; Python {where['python']}, {versions}"
    )
    parts = [
        _HEAD.read_text(encoding="utf-8").rstrip(),
        f"## Numbers\n\nMachine: {text}. Medians of {repeats} runs, where a row does not say otherwise.",
        _table(_COLUMNS, (line for key, row in rows.items() for line in _lines(row, results[key]))),
        _missed(rows, results),
        _roofline(rows, results, roof or {}),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    shown = [f"| {' | '.join(line)} |" for line in lines]
    return "\n".join([f"| {' | '.join(head)} |", "|" + "---|" * len(head), *shown])


def _lines(row: Row, found: Mapping[str, Result]) -> Iterable[tuple[str, ...]]:
    ours = found["detcore"]
    own = (ours.failure, "") if ours.failure else (_time(ours.median), _size(ours.memory))
    title = f"{row.title} ({row.runs} runs)" if row.runs else row.title
    peers = {name: result for name, result in found.items() if name != "detcore"}
    for i, (name, result) in enumerate(peers.items() or [("", None)]):
        left = (title, *own) if i == 0 else ("", "", "")
        wanted = "; ".join(
            text for peer, text, _ in targets(row, found) if peer == name or (i == 0 and not peer)
        )
        yield *left, name, *_compared(ours, result), wanted


def targets(row: Row, found: Mapping[str, Result]) -> Iterable[tuple[str, str, bool]]:
    """(peer, or "" where none is meant; the target in words; whether it was reached) of each that could be measured."""
    ours = found["detcore"]
    if ours.failure:
        return
    for peer, factor in row.targets.items():
        if peer in found and not found[peer].failure:
            reached = found[peer].median >= factor * ours.median
            yield peer, f"{factor:g}x {_verdict(reached)}", reached
    if row.max_seconds is not None:
        reached = ours.median < row.max_seconds
        yield "", f"below {_time(row.max_seconds)} {_verdict(reached)}", reached
    if row.max_memory is not None:
        reached = ours.memory < row.max_memory
        yield "", f"below {_size(row.max_memory)} {_verdict(reached)}", reached


def _verdict(reached: bool) -> str:
    return "reached" if reached else "**missed**"


def _missed(rows: Mapping[str, Row], results: Mapping[str, Mapping[str, Result]]) -> str:
    lines = []
    for key, row in rows.items():
        bad = [(text, peer) for peer, text, reached in targets(row, results[key]) if not reached]
        if bad:
            what = ", ".join(f"{text.partition(' **')[0]} {peer}".strip() for text, peer in bad)
            lines.append(f"- {row.title}: {what}. {row.why or 'No reason is known yet.'}")
    return "\n".join(["## What missed its target\n", *lines]) if lines else ""


def _roofline(
    rows: Mapping[str, Row], results: Mapping[str, Mapping[str, Result]], roof: Mapping[str, float]
) -> str:
    lines = []
    for key, row in rows.items():
        ours = results[key]["detcore"]
        if key in roof and not ours.failure:
            kind = "bfloat16" if HEAVY[key] else "float32"
            rate = roof[key] / ours.median
            share = f"{100 * rate / roof[kind]:.0f} %"
            lines.append((row.title, f"{roof[key] / 1e9:.0f}", f"{rate / 1e9:.0f}", kind, share))
    if not lines:
        return ""
    peaks = ", ".join(f"{roof[kind] / 1e9:.0f} in {kind}" for kind in ("float32", "bfloat16"))
    text = f"""## Roofline

A convolution that is easy to do reaches {peaks} (10^9 operations per second, a product and a sum being two), measured
in the same run. What a row's network multiplies and adds is counted; everything else in the row's time counts as loss.
"""
    return text + "\n" + _table(("work", "10^9 operations", "per second", "in", "of the peak"), lines)


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
