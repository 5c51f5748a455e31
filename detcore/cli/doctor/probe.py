"""Loads the entry points of one distribution and writes down how each went.

It runs in a process that is allowed to die: each entry is noted before it is loaded, so that whoever reads the
notes knows which one was the end of the process.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from detcore.entries import Entry
from detcore.errors import DetcoreError, InterfaceVersionError

#: Seconds from which an import is called slow, on top of that of detcore's own interfaces.
SLOW = 5.0


def run(entries: Sequence[tuple[int, Entry]], notes: Path, log: Path) -> None:
    """Loads entries, one after another.

    Args:
        entries: Each with the number that it has in the notes.
        notes: File to append to: a JSON line when an entry is begun, another when it is done.
        log: File that gets whatever the plugins print.
    """
    _redirect_output(log)
    with notes.open("a", encoding="utf-8") as file:
        for number, entry in entries:
            _note(file, {"number": number, "begun": True})
            _note(file, {"number": number, **examine(entry, log)})


def _redirect_output(log: Path) -> None:
    # the file descriptors themselves: what a C library prints is seen too
    stream = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for descriptor in (1, 2):
        os.dup2(stream, descriptor)
    sys.stdout = sys.stderr = open(log, "a", buffering=1, encoding="utf-8")  # noqa: SIM115


def _note(file: Any, value: dict[str, Any]) -> None:
    file.write(json.dumps(value) + "\n")
    file.flush()


def examine(entry: Entry, log: Path) -> dict[str, Any]:
    """Loads one entry: its state, the cause where it is not ok, the seconds, and what else was noticed."""
    state_before, printed_before = global_state(), log.stat().st_size
    start = time.perf_counter()
    state, cause, remarks = _load(entry)
    seconds = time.perf_counter() - start
    sys.stdout.flush()
    printed = log.read_bytes()[printed_before:].decode(errors="replace").strip()
    if printed:
        first = printed.splitlines()[0]
        remarks.append(f"prints when it is imported: {first[:80]!r}")
    state_after = global_state()
    changed = [name for name, before in state_before.items() if state_after.get(name) != before]
    if changed:
        remarks.append(f"changes global state when it is imported: {', '.join(changed)}")
    if seconds > SLOW:
        remarks.append(f"takes {seconds:.0f} s to import")
    return {"state": state, "cause": cause, "seconds": round(seconds, 3), "remarks": remarks}


def _load(entry: Entry) -> tuple[str, str, list[str]]:
    try:
        return "ok", "", list(_use(entry))
    except InterfaceVersionError as error:
        return "api_mismatch", str(error), []
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return "broken", _cause(error), []


def _use(entry: Entry) -> list[str]:
    """Loads an entry and does the first thing that would be done with it; what is odd about it."""
    if entry.kind == "recipes":
        from detcore import config

        config.recipe_path(entry)
        config.load(entry.name)
        return []
    if entry.kind == "hooks":
        from detcore import hooks

        manager = hooks.empty_manager()
        manager.register(entry.load())
        return (
            [] if manager.get_hookcallers(manager.get_plugins().pop()) else ["implements no hook of detcore"]
        )
    return _use_component(entry)


def _use_component(entry: Entry) -> list[str]:
    from detcore.registry import Registry
    from detcore.signature import signature_of

    component = Registry([entry]).load(entry)
    if inspect.isabstract(component):
        missing = ", ".join(sorted(getattr(component, "__abstractmethods__", ())))
        raise entry.broken(f"being abstract: it does not define {missing}")
    signature = signature_of(component)
    _ = signature.model
    if component.__name__ != entry.name:
        return [f"the class is called {component.__name__}: the entry point should have its name"]
    return []


def _cause(error: BaseException) -> str:
    """What went wrong, in one line: the plugin's own exception with its place, or what the core says."""
    origin = error.__cause__ if isinstance(error, DetcoreError) else error
    if origin is None:
        return str(error).partition(" failed with ")[2].partition(". Update or uninstall")[0] or str(error)
    place, trace = "", origin.__traceback__
    while trace:
        file = trace.tb_frame.f_code.co_filename
        if os.sep in file:  # not importlib's own frozen modules
            place = f" ({Path(file).name}:{trace.tb_lineno})"
        trace = trace.tb_next
    return f"{type(origin).__name__}: {origin}{place}"


def global_state() -> dict[str, str]:
    """What an import should leave alone, as far as it can be asked for; by name."""
    state = {
        "the working directory": os.getcwd(),
        "the environment": repr(sorted(os.environ.items())),
        "sys.excepthook": repr(sys.excepthook),
        "Python's random state": _digest(repr(random.getstate())),
    }
    if "numpy" in sys.modules:
        state["numpy's random state"] = _digest(repr(sys.modules["numpy"].random.get_state()[1].tolist()))
    if "torch" in sys.modules:
        state |= _torch_state(sys.modules["torch"])
    return state


def _torch_state(torch: Any) -> dict[str, str]:
    values = {
        "torch's default dtype": torch.get_default_dtype(),
        "torch's default device": torch.get_default_device(),
        "torch's number of threads": torch.get_num_threads(),
        "torch's gradient mode": torch.is_grad_enabled(),
        "torch's anomaly detection": torch.is_anomaly_enabled(),
        "torch's deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        "torch's float32 matmul precision": torch.get_float32_matmul_precision(),
        "torch.backends.cudnn.benchmark": torch.backends.cudnn.benchmark,
        "torch.backends.cudnn.deterministic": torch.backends.cudnn.deterministic,
        "torch's random state": _digest(repr(torch.get_rng_state().tolist())),
    }
    return {name: repr(value) for name, value in values.items()}


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
