"""``python -m bench``: runs the rows, writes bench/results/TIME.json and docs/performance.md.

The JSON file is written after every row, so that a run that was ended goes on with ``--resume FILE``.
"""

from __future__ import annotations

import argparse
import fnmatch
import importlib
import os
from pathlib import Path

from bench import report, roofline
from bench.harness import Result, measure
from bench.row import Row

ROOT = Path(__file__).parents[1]
#: In the order of the table.
MODULES = (
    "training",
    "inference",
    "postprocess",
    "assignment",
    "focal",
    "loading",
    "evaluation",
    "startup",
)


def main() -> None:
    """Runs what the command line asks for; Ctrl-C ends the measuring, not the writing."""
    args = arguments()
    wanted = {
        f"{module}/{name}": (module, name, row)
        for module in MODULES
        for name, row in rows_of(module).items()
        if chosen(f"{module}/{name}", args.rows)
    }
    pythons = {"mmdet": args.mmdet_python or ""}
    record = report.Record.begun(args.out, report.machine(args.threads), args.resume)
    try:
        for key, (module, name, row) in wanted.items():
            if key not in record.rows:
                found = measure(
                    module, name, row, repeats=row.runs or args.repeats, threads=args.threads, pythons=pythons
                )
                record.add(key, found)
            print(key, *(describe(*result) for result in record.rows[key].items()), sep="  ", flush=True)
    except KeyboardInterrupt:
        print("stopped")
    print("wrote", record.path)
    if args.page:
        rows = {key: row for key, (_, _, row) in wanted.items() if key in record.rows}
        roof = roofline.measure(args.threads)
        args.page.write_text(report.page(record.machine, rows, record.rows, args.repeats, roof))
        print("wrote", args.page)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("rows", nargs="*", help="patterns such as 'assignment/*'; all where none is given")
    parser.add_argument("--repeats", type=int, default=5, help="timed runs of each contender")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--mmdet-python", help="an interpreter that can import mmdet")
    parser.add_argument(
        "--out", type=Path, default=ROOT / "bench" / "results", help="folder of the JSON files"
    )
    parser.add_argument(
        "--resume", type=Path, help="a JSON file of a run that ended early; its rows are kept"
    )
    parser.add_argument("--page", type=Path, help="the table, as a Markdown file")
    return parser.parse_args()


def rows_of(module: str) -> dict[str, Row]:
    """The rows of one file."""
    rows: dict[str, Row] = importlib.import_module(f"bench.rows.{module}").ROWS
    return rows


def chosen(key: str, patterns: list[str]) -> bool:
    """Whether a row is to be run."""
    return not patterns or any(fnmatch.fnmatchcase(key, pattern) for pattern in patterns)


def describe(name: str, result: Result) -> str:
    """One contender's numbers, for the terminal."""
    if result.failure:
        return f"{name}: {result.failure}"
    return f"{name}: {result.median:.4f} s, {result.memory / 2**20:.0f} MiB"


if __name__ == "__main__":
    main()
