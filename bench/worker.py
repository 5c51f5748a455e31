"""One contender of one row in a process of its own: ``python -m bench.worker MODULE ROW CONTENDER THREADS``.

It answers each line on standard input with one line of JSON: "time" runs the work once and gives the seconds,
"memory" runs it once and gives the peak of the memory beyond what was held before, in bytes.
"""

from __future__ import annotations

import gc
import importlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


def main() -> None:
    """Prepares the work, says so, and does it whenever it is told to."""
    module, row, contender, threads = sys.argv[1:]
    out, sys.stdout = sys.stdout, sys.stderr  # what libraries print is not an answer
    torch.set_num_threads(int(threads))
    torch.manual_seed(0)
    work = importlib.import_module(f"bench.rows.{module}").ROWS[row].contenders[contender]()
    print(json.dumps("ready"), file=out, flush=True)
    answers = {"time": seconds, "memory": peak}
    for line in sys.stdin:
        print(json.dumps(answers[line.strip()](work)), file=out, flush=True)


def seconds(work: Callable[[], Any]) -> float:
    """The time of one run, the device's work included."""
    gc.collect()
    synchronise()
    begin = time.perf_counter()
    work()
    synchronise()
    return time.perf_counter() - begin


def peak(work: Callable[[], Any]) -> int:
    """The highest memory during one run, less what was held before it."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        return torch.cuda.max_memory_allocated() - before
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak of the resident memory
    before = resident("VmRSS")
    work()
    return max(0, resident("VmHWM") - before)


def resident(name: str) -> int:
    """A number of this process's memory, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {name}")


def synchronise() -> None:
    """Waits for the device."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
