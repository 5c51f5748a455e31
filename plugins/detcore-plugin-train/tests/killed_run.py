"""Trains in processes that are killed again and again; the program behind test_killed.py.

torch is imported once; each attempt at training is a fork, so that many fit into a test.
"""

from __future__ import annotations

import importlib.util
import io
import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path

import torch
from rich.console import Console

from detcore import registry


def load_toys():
    spec = importlib.util.spec_from_file_location("toys", Path(__file__).with_name("conftest.py"))
    toys = importlib.util.module_from_spec(spec)
    sys.modules["toys"] = toys
    spec.loader.exec_module(toys)
    return {
        registry.Entry(toy.kind, toy.__name__, "detcore-toys", "1.0", f"toys:{toy.__name__}"): toy
        for toy in toys.TOYS
    }


def train(config, folder, arrange=lambda: None):
    """Trains, or continues, in a process of its own; returns its id."""
    child = os.fork()
    if child:
        return child
    try:
        from detcore_train import fit

        from detcore.serialize import build

        entries = load_toys()
        with registry.use(registry.Registry([*registry.current().entries, *entries], entries)):
            experiment = build(config, kind="experiments")
            arrange()
            out = Console(file=io.StringIO(), width=200)
            try:
                fit(experiment, folder, accelerator="cpu", resume=True, console=out)
            finally:
                with (folder.parent / f"{folder.name}.log").open("a") as log:
                    log.write(out.file.getvalue())
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def kill_in_file_system(number):
    """Arranges that the process kills itself before its ``number``-th change of what is on the disk."""
    from detcore_train import durable, runfolder

    left = number

    def counted(function):
        def call(*args, **options):
            nonlocal left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **options)

        return call

    def arrange():
        for module, names in (
            (durable, ("sync", "sync_folder")),
            (runfolder, ("digest", "sync", "sync_folder")),
        ):
            for name in names:
                setattr(module, name, counted(getattr(module, name)))
        for module, names in ((os, ("replace", "rename")), (shutil, ("rmtree", "copytree", "copyfile"))):
            for name in names:
                setattr(module, name, counted(getattr(module, name)))

    return arrange


def kill_after(child, seconds):
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)


def main(config, out, seed, kills):
    torch.set_num_threads(1)
    import detcore_train.engine.fit  # noqa: F401 - before forking
    from torch.utils import tensorboard  # noqa: F401

    config, out, chosen = json.loads(Path(config).read_text()), Path(out), random.Random(int(seed))
    out.mkdir()
    begin = time.monotonic()
    if os.waitstatus_to_exitcode(os.waitpid(train(config, out / "unbroken"), 0)[1]):
        raise SystemExit("the unbroken run failed")
    whole = time.monotonic() - begin
    killed, runs = [], 0
    while len(killed) < int(kills) or runs == 0:
        folder, runs = out / f"broken-{runs}", runs + 1
        while True:
            how = chosen.choice(("time", "files")) if len(killed) < int(kills) else "never"
            arrange = kill_in_file_system(chosen.randint(1, 120)) if how == "files" else lambda: None
            child = train(config, folder, arrange)
            if how == "time":
                kill_after(child, chosen.uniform(0.1, 0.6 * whole))
            status = os.waitpid(child, 0)[1]
            if not os.WIFSIGNALED(status):
                break
            writing = any(folder.glob(".writing-*"))
            rows = (
                (folder / "train.csv").read_text().splitlines()[1:]
                if (folder / "train.csv").is_file()
                else []
            )
            killed.append({"how": how, "writing": writing, "rows": len(rows), "run": folder.name})
        if os.waitstatus_to_exitcode(status):
            raise SystemExit(f"{folder.name} failed after {killed}")
    print(json.dumps({"killed": killed, "runs": runs, "seconds": whole}))  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
