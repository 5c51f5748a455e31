"""How long ``detcore list`` takes with 200 more plugin distributions installed, and that it imports none of them.

Run ``python bench/list_plugins.py``. Each distribution is what an installer leaves of one: a ``dist-info`` folder
with a METADATA of a usual length, entry points, a RECORD, and a package whose import would be noticed. Reports the
time of the whole command, from the shell's view, and that of Python's own start to compare with.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

LIMIT = 0.5
COMMAND = [sys.executable, "-c", "from detcore.cli import main; main()", "list"]
IMPORTED = "raise AssertionError('imported')\n"


def make_plugins(folder: Path, count: int, components: int = 3) -> None:
    """Writes ``count`` distributions with some components each."""
    for number in range(count):
        name, package = f"synthetic-{number:03}", f"synthetic_{number:03}"
        info = folder / f"{package}-1.0.dist-info"
        info.mkdir()
        readme = "A line of a description as long as they usually are, give or take a word.\n" * 60
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.4\nName: {name}\nVersion: 1.0\nSummary: A plugin.\n"
            f"Requires-Dist: detcore>=0.1\n\n{readme}"
        )
        points = "".join(
            f"Part{number:03}x{i} = {package}.part:Part{number:03}x{i}\n" for i in range(components)
        )
        (info / "entry_points.txt").write_text(
            f"[detcore.assigners]\n{points}\n[detcore.api]\nassigners = v1\n"
        )
        (info / "RECORD").write_text("")
        (folder / package).mkdir()
        (folder / package / "__init__.py").write_text(IMPORTED)


def timed(command: list[str], environment: dict[str, str], runs: int) -> tuple[dict[str, float], str]:
    """Wall and processor seconds (the medians, and the best) and what the last run printed."""
    wall, processor, output = [], [], ""
    for _ in range(runs):
        used, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        wall.append(time.perf_counter() - start)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        processor.append(after.ru_utime - used.ru_utime + after.ru_stime - used.ru_stime)
        output = done.stdout
    numbers = {
        "wall_s": statistics.median(wall),
        "best_wall_s": min(wall),
        "cpu_s": statistics.median(processor),
    }
    return {name: round(value, 3) for name, value in numbers.items()}, output


def measure(count: int, runs: int) -> dict[str, Any]:
    """Times of the command with and without ``count`` plugins."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_plugins(folder, count)
        environment = dict(os.environ)
        python, _ = timed([sys.executable, "-c", "pass"], environment, runs)
        without, _ = timed(COMMAND, environment, runs)
        environment["PYTHONPATH"] = str(folder)
        timed(COMMAND, environment, 1)  # the first fills the system's cache of files
        seconds, output = timed(COMMAND, environment, runs)
    listed = output.count(" Part")
    if listed != 3 * count:
        raise AssertionError(f"{listed} components were listed, not {3 * count}")
    return {
        "plugins": count,
        "python_alone": python,
        "list": without,
        "list_with_plugins": seconds,
        "limit_s": LIMIT,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "load": round(os.getloadavg()[0], 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--plugins", type=int, default=200)
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--out", type=Path, help="write the numbers here as JSON too")
    arguments = parser.parse_args()
    numbers = measure(arguments.plugins, arguments.runs)
    text = json.dumps(numbers, indent=1)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n")
    # the command has one thread: where others use the machine too, the wall measures them
    if numbers["list_with_plugins"]["cpu_s"] > LIMIT:
        sys.exit(f"slower than {LIMIT} s")


if __name__ == "__main__":
    main()
