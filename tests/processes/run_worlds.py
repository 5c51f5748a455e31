"""Trains in several processes; started by test_processes.py.

Imports everything once and forks the processes of one "world" after the other, with the environment variables that
torchrun sets. A world is ``{"processes": N, "runs": [{"config", "out", "options", "sabotage", "spare", "copy_of"}]}``;
with ``"hanging": rank``, that process is not waited for once the others have ended.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import socket
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

import detcore_rcnn  # noqa: F401
import detcore_retina  # noqa: F401
import torch
from detcore_train import fit
from detcore_train.engine.module import TrainingModule
from rich.console import Console

from detcore.component import Part, make
from detcore.errors import DetcoreError
from detcore.interfaces import Dataset, Metric
from detcore.serialize import build
from detcore.structures import ImageDetections

DEADLINE = 150.0


def digest(state: dict[str, torch.Tensor]) -> str:
    whole = hashlib.sha256()
    for name in sorted(state):
        whole.update(name.encode() + state[name].contiguous().numpy().tobytes())
    return whole.hexdigest()


def sabotage(rank: int, at: int, number: int) -> None:
    """Sends this process a signal in the midst of a batch."""
    original = TrainingModule.training_step

    def training_step(self: TrainingModule, *args: object) -> torch.Tensor:
        if self.global_rank == rank and self.batches_done == at:
            os.kill(os.getpid(), number)
        return original(self, *args)

    TrainingModule.training_step = training_step


class Counting(Metric):
    """A metric that tells also what it was given."""

    def __init__(self, *, metric: Part[Metric]) -> None:
        self.metric = make(metric)

    def start(self, dataset: Dataset) -> None:
        self.metric.start(dataset)
        self.ids: list[int] = []
        self.boxes, self.scores = 0, 0.0

    def update(self, image_ids: Sequence[int], detections: Sequence[ImageDetections]) -> None:
        self.metric.update(image_ids, detections)
        self.ids += image_ids
        self.boxes += sum(len(found.boxes) for found in detections)
        self.scores += sum(float(found.scores.double().sum()) for found in detections)

    def compute(self) -> dict[str, float | None]:
        told = {
            "images": len(self.ids),
            "different": len(set(self.ids)),
            "boxes": self.boxes,
            "scores": self.scores,
        }
        return {**self.metric.compute(), **told}


def one(run: dict, rank: int) -> None:
    if "sabotage" in run:
        sabotage(**run["sabotage"])
    run["config"]["data"]["train"].update(run.get("per_process", {}).get(str(rank), {}))
    experiment = build(run["config"], kind="experiments")
    if run.get("spare"):
        experiment.model.spare = torch.nn.Linear(2, 2)
    experiment.metric = Counting(metric=experiment.metric)
    console = Console(force_terminal=run.get("terminal"), width=160)
    fit(experiment, run["out"], accelerator="cpu", console=console, **run.get("options", {}))
    model = experiment.model
    told = {
        "weights": digest(model.state_dict()),
        "average": digest(dict(experiment.ema.weights())) if experiment.ema is not None else "",
        "frozen": digest({n: v for n, v in model.state_dict().items() if "running" in n}),
    }
    (Path(run["out"]) / f"process{rank}.json").write_text(json.dumps(told))


def child(world: dict, rank: int, port: int, folder: Path) -> None:
    count = world["processes"]
    if count > 1:
        told = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "GROUP_RANK": 0,
                "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "test"}  # fmt: skip
        os.environ.update({name: str(value) for name, value in told.items()})
    output = os.open(folder / f"output{rank}.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    try:
        for run in world["runs"]:
            one(run, rank)
    except DetcoreError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        sys.stderr.flush()
        os._exit(2)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    sys.stdout.flush()
    os._exit(0)


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def play(world: dict, folder: Path) -> dict:
    """Forks the processes, and waits for them; the exit code and seconds of each."""
    folder.mkdir(parents=True)
    for run in world["runs"]:
        if "copy_of" in run:
            shutil.copytree(run["copy_of"], run["out"])
    port, begin = free_port(), time.monotonic()
    pids = {}
    for rank in range(world["processes"]):
        pid = os.fork()
        if pid == 0:
            child(world, rank, port, folder)
        pids[pid] = rank
    codes: dict[int, int] = {}
    seconds: dict[int, float] = {}
    awaited = set(pids.values()) - {world.get("hanging")}
    while not awaited <= codes.keys() and time.monotonic() - begin < world.get("deadline", DEADLINE):
        for pid, rank in pids.items():
            if rank not in codes:
                done, status = os.waitpid(pid, os.WNOHANG)
                if done:
                    codes[rank], seconds[rank] = os.waitstatus_to_exitcode(status), time.monotonic() - begin
        time.sleep(0.02)
    for pid, rank in pids.items():
        if rank not in codes:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    return {
        "codes": [codes.get(r) for r in range(len(pids))],
        "seconds": [seconds.get(r) for r in range(len(pids))],
    }


def main(file: str) -> None:
    torch.set_num_threads(1)
    folder = Path(file).parent
    for name, world in json.loads(Path(file).read_text()).items():
        result = play(world, folder / "worlds" / name)
        (folder / "worlds" / name / "result.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1])
