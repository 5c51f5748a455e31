"""Runs the probe over distributions, each in a process of its own, and survives whatever these do.

``python -m detcore.cli.doctor.supervisor REQUEST ANSWER`` is itself run in a process of its own, because
importing detcore's interfaces (and torch) is the first thing that may fail. Where that succeeds, the processes of
the plugins are forks of it on Linux, which spares each of them these seconds; elsewhere they are started anew.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from detcore.cli.doctor import probe
from detcore.entries import Entry

#: A numbered entry, as the notes refer to it.
Numbered = tuple[int, Entry]
_FORKS = sys.platform.startswith("linux")


class Process:
    """A running probe.

    Args:
        poll: Its exit code, negative for a signal; None while it runs.
        kill: Ends it.
    """

    def __init__(self, poll: Callable[[], int | None], kill: Callable[[], None]) -> None:
        self.poll = poll
        self.kill = kill


def examine(entries: Sequence[Numbered], folder: Path, timeout: float) -> dict[int, dict[str, Any]]:
    """How each entry of one distribution went; a process that an entry ended is started again for the rest.

    Args:
        entries: What to load.
        folder: An empty folder.
        timeout: Seconds for one entry.
    """
    results: dict[int, dict[str, Any]] = {}
    rest = list(entries)
    while rest:
        ended = _wait(_start(rest, folder), folder / "notes", timeout)
        notes = _read(folder / "notes")
        done = {note.pop("number"): note for note in notes if "state" in note}
        results |= done
        begun = [note["number"] for note in notes if "begun" in note and note["number"] not in results]
        for number in begun or ([] if done else [rest[0][0]]):  # it died of this one, or before the first
            results[number] = {"state": "broken", "cause": ended, "seconds": None, "remarks": []}
        rest = [numbered for numbered in rest if numbered[0] not in results]
    return results


def _wait(process: Process, notes: Path, timeout: float) -> str:
    """How it ended, in words."""
    size, deadline = 0, time.monotonic() + timeout
    while (code := process.poll()) is None:
        if notes.exists() and notes.stat().st_size != size:
            size, deadline = notes.stat().st_size, time.monotonic() + timeout
        if time.monotonic() > deadline:
            process.kill()
            return f"its import did not end within {timeout:g} s"
        time.sleep(0.01)
    if code < 0:
        return f"it ended the process with signal {signal.Signals(-code).name}"
    return f"it ended the process with exit code {code}"


def _read(notes: Path) -> list[dict[str, Any]]:
    if not notes.exists():
        return []
    return [json.loads(line) for line in notes.read_text(encoding="utf-8").splitlines()]


def _start(entries: Sequence[Numbered], folder: Path) -> Process:
    return _fork(entries, folder) if _FORKS else _spawn(entries, folder)


def _fork(entries: Sequence[Numbered], folder: Path) -> Process:
    child = os.fork()
    if child == 0:
        try:
            os.setsid()
            probe.run(entries, folder / "notes", folder / "log")
        finally:
            os._exit(0)

    def poll() -> int | None:
        found, status = os.waitpid(child, os.WNOHANG)
        return os.waitstatus_to_exitcode(status) if found else None

    def kill() -> None:
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)

    return Process(poll, kill)


def _spawn(entries: Sequence[Numbered], folder: Path) -> Process:
    request = {"path": sys.path, "entries": [(number, vars(entry)) for number, entry in entries]}
    (folder / "request").write_text(json.dumps(request), encoding="utf-8")
    command = [sys.executable, "-W", "ignore", "-m", __spec__.name, "--child", str(folder)]
    child = subprocess.Popen(command)

    def kill() -> None:
        child.kill()
        child.wait()

    return Process(child.poll, kill)


def _child(folder: Path) -> None:
    request = json.loads((folder / "request").read_text(encoding="utf-8"))
    sys.path[:] = request["path"]
    import detcore.interfaces  # noqa: F401 - so that its cost is not the first plugin's

    entries = [(number, Entry(**fields)) for number, fields in request["entries"]]
    probe.run(entries, folder / "notes", folder / "log")


def main(request: Path, answer: Path) -> None:
    """Examines the distributions that a file names, and writes what was found to another."""
    asked = json.loads(request.read_text(encoding="utf-8"))
    sys.path[:] = asked["path"]
    import detcore.interfaces  # noqa: F401 - the forks have it then

    results: dict[int, dict[str, Any]] = {}
    for entries in asked["distributions"]:
        numbered = [(number, Entry(**fields)) for number, fields in entries]
        with tempfile.TemporaryDirectory() as folder:
            results |= examine(numbered, Path(folder), asked["timeout"])
    answer.write_text(json.dumps({"results": results, "torch": _torch()}), encoding="utf-8")


def _torch() -> dict[str, Any]:
    """What torch sees of the machine; asked for last, since a process that touched CUDA cannot be forked."""
    import torch

    devices = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {"version": torch.__version__, "cuda": torch.version.cuda, "devices": devices}


if __name__ == "__main__":
    if sys.argv[1] == "--child":
        _child(Path(sys.argv[2]))
    else:
        main(Path(sys.argv[1]), Path(sys.argv[2]))
