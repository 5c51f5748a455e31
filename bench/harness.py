"""Runs the contenders of a row in turn, each in a process of its own, so that none warms or fills another's."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from bench.row import Row

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Result:
    """What one contender reached.

    Args:
        seconds: Of each run.
        memory: Peak beyond what was held before the run, in bytes.
        failure: Why there are no numbers; the others are empty then.
    """

    seconds: tuple[float, ...] = ()
    memory: int = 0
    failure: str = ""

    @property
    def median(self) -> float:
        """The median of the runs, in seconds."""
        return statistics.median(self.seconds)


class WorkerError(RuntimeError):
    """A contender's process ended; says with what."""


def measure(
    module: str, name: str, row: Row, *, repeats: int, threads: int, pythons: Mapping[str, str]
) -> dict[str, Result]:
    """Every contender's numbers: memory in a first, cold run; then the times, the contenders taking turns.

    Args:
        module: The file below ``rows/``.
        name: The row's name in it.
        row: The row.
        repeats: Timed runs of each contender.
        threads: Threads of each contender.
        pythons: Interpreters of contenders that do not run in this environment.
    """
    results = {contender: Result(failure=reason) for contender, reason in row.limits.items()}
    with ExitStack() as stack:
        workers = {}
        for contender in row.contenders:
            python = pythons.get(contender, sys.executable)
            if contender in results or not python:
                continue
            try:
                workers[contender] = stack.enter_context(Worker.run(python, module, name, contender, threads))
            except WorkerError as error:
                results[contender] = Result(failure=str(error))
        memory = {contender: worker.ask("memory") for contender, worker in workers.items()}
        times: dict[str, list[float]] = {contender: [] for contender in workers}
        for _ in range(repeats):
            for contender, worker in workers.items():
                times[contender].append(worker.ask("time"))
    for contender in workers:
        results[contender] = Result(tuple(times[contender]), int(memory[contender]))
    return {contender: results[contender] for contender in row.contenders if contender in results}


class Worker:
    """A contender's process, ready to work.

    Args:
        process: It.
        errors: What it writes to standard error.
    """

    def __init__(self, process: subprocess.Popen[str], errors: IO[str]) -> None:
        self.process, self.errors = process, errors
        self._answer()

    @classmethod
    @contextmanager
    def run(cls, python: str, module: str, row: str, contender: str, threads: int) -> Iterator[Worker]:
        """Starts the process, and ends it.

        Raises:
            WorkerError: It could not prepare the work.
        """
        command = [python, "-m", "bench.worker", module, row, contender, str(threads)]
        environment = os.environ | {"OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(ROOT)}
        # else every start would compile what has no bytecode yet
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        with tempfile.TemporaryFile("w+") as errors, subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True,
            cwd=ROOT, env=environment,
        ) as process:  # fmt: skip
            try:
                yield cls(process, errors)
            finally:
                process.kill()

    def ask(self, what: str) -> Any:
        """One run: "time" or "memory".

        Raises:
            WorkerError: The process ended.
        """
        if self.process.stdin is None:
            raise WorkerError("the process has no standard input")
        try:
            self.process.stdin.write(what + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # it ended; the missing answer says so
        return self._answer()

    def _answer(self) -> Any:
        line = self.process.stdout.readline() if self.process.stdout else ""
        if not line:
            code = self.process.wait()
            self.errors.seek(0)
            lines = self.errors.read().strip().splitlines() or [f"exit code {code}"]
            raise WorkerError(lines[-1][:200])
        return json.loads(line)
