"""How many processes train together, and who starts them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch

from detcore.errors import ConfigError

Accelerator = Literal["auto", "cpu", "cuda", "mps"]
#: ``own``: this program starts the processes of its machine itself.
Launcher = Literal["own", "torchrun", "slurm"]

_TORCHRUN = "TORCHELASTIC_RUN_ID"
_MEETING = ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK")


@dataclass(frozen=True)
class Layout:
    """The processes of a run, and which of them this one is.

    Args:
        launcher: Who starts the processes.
        accelerator: What each computes on.
        devices: Processes per machine; each has a device of its own.
        nodes: Machines.
        rank: This process among all, from 0.
    """

    launcher: Launcher
    accelerator: str
    devices: int = 1
    nodes: int = 1
    rank: int = 0

    @property
    def count(self) -> int:
        """The number of processes on all machines."""
        return self.devices * self.nodes

    @classmethod
    def find(
        cls,
        accelerator: Accelerator = "auto",
        devices: int | Literal["auto"] = "auto",
        nodes: int | Literal["auto"] = "auto",
        environment: Mapping[str, str] | None = None,
    ) -> Layout:
        """The layout for what was asked for, what there is, and what a launcher says.

        A launcher (torchrun, or srun of Slurm) decides the numbers; what is given besides has to agree.

        Args:
            accelerator: "auto" takes CUDA where there is one.
            devices: Per machine; "auto" for what the launcher started, without one for all there are.
            nodes: Likewise; without a launcher 1.
            environment: Environment variables; the process's own where None.

        Raises:
            ConfigError: The numbers contradict the launcher's or the machine's, or the launcher's own say too little.
        """
        values = os.environ if environment is None else environment
        if accelerator == "auto":
            accelerator = "cuda" if torch.cuda.is_available() else "cpu"
        launcher = _launcher(values)
        if launcher == "torchrun":
            found = _under_torchrun(values, accelerator)
        elif launcher == "slurm":
            found = _under_slurm(values, accelerator)
        else:
            count = devices if devices != "auto" else _all(accelerator)
            found = _alone(values, accelerator, count, 1 if nodes == "auto" else nodes)
        _check_agreement(found, devices, nodes)
        _check_machine(found)
        return found


def _launcher(values: Mapping[str, str]) -> Launcher:
    if _TORCHRUN in values:
        return "torchrun"
    # srun of one task is no launcher: that task may start processes itself
    interactive = values.get("SLURM_JOB_NAME") in ("bash", "interactive")
    if _number(values, "SLURM_NTASKS", 1) > 1 and not interactive:
        return "slurm"
    world = _number(values, "WORLD_SIZE", 1)
    if world > 1 and "RANK" in values and "LOCAL_RANK" not in values:
        raise ConfigError(
            f"WORLD_SIZE={world} and RANK={values['RANK']} are set, but LOCAL_RANK is not, so no launcher that "
            "detcore knows started this process: start it with `torchrun ... -m detcore train ...`, or unset them"
        )
    return "own"


def _under_torchrun(values: Mapping[str, str], accelerator: str) -> Layout:
    world, local = _number(values, "WORLD_SIZE"), _number(values, "LOCAL_WORLD_SIZE")
    if world % local:
        raise ConfigError(
            f"torchrun started {local} processes on this machine and {world} in all: every machine has to have "
            "the same number; give each torchrun the same --nproc-per-node"
        )
    return Layout("torchrun", accelerator, local, world // local, _number(values, "RANK"))


def _under_slurm(values: Mapping[str, str], accelerator: str) -> Layout:
    tasks = _number(values, "SLURM_NTASKS")
    nodes = _number(values, "SLURM_NNODES", _number(values, "SLURM_JOB_NUM_NODES", 1))
    if "SLURM_STEP_ID" not in values and "SLURM_STEPID" not in values:
        raise ConfigError(
            f"Slurm gives this job {tasks} tasks, but the command was not started by srun, so the others would "
            "never come: write `srun detcore train ...` in the batch script"
        )
    per_node = _number(values, "SLURM_NTASKS_PER_NODE", 0)
    if per_node == 0 or per_node * nodes != tasks:
        raise ConfigError(
            f"Slurm starts {tasks} tasks on {nodes} nodes, SLURM_NTASKS_PER_NODE is {per_node or 'not set'}: write "
            "`#SBATCH --nodes=M` and `#SBATCH --ntasks-per-node=N` (one task per GPU), without --ntasks"
        )
    return Layout("slurm", accelerator, per_node, nodes, _number(values, "SLURM_PROCID"))


def _alone(values: Mapping[str, str], accelerator: str, devices: int, nodes: int) -> Layout:
    missing = [name for name in _MEETING if name not in values]
    if nodes > 1 and missing:
        raise ConfigError(
            f"--nodes {nodes} without torchrun or Slurm needs the environment variables {', '.join(_MEETING)}, the "
            f"first two the same on every machine; {', '.join(missing)} not set. torchrun sets all of them: "
            f"`torchrun --nnodes {nodes} --nproc-per-node {devices} ... -m detcore train FILE`"
        )
    node = _number(values, "NODE_RANK", 0) if nodes > 1 else 0
    local = _number(values, "LOCAL_RANK", 0) if devices * nodes > 1 else 0
    return Layout("own", accelerator, devices, nodes, node * devices + local)


def _check_agreement(found: Layout, devices: int | str, nodes: int | str) -> None:
    started = {"torchrun": "torchrun started", "slurm": "Slurm started"}.get(found.launcher)
    for option, asked, there in (("--devices", devices, found.devices), ("--nodes", nodes, found.nodes)):
        if asked not in ("auto", there):
            what = "processes per machine" if option == "--devices" else "machines"
            raise ConfigError(
                f"{option} {asked} contradicts what {started} ({there} {what}): leave {option} out, the launcher "
                "decides"
            )


def _check_machine(found: Layout) -> None:
    if found.accelerator == "cuda" and found.devices > torch.cuda.device_count():
        raise ConfigError(
            f"{found.devices} processes on this machine, but torch finds {torch.cuda.device_count()} CUDA devices: "
            "each process needs one of its own (see CUDA_VISIBLE_DEVICES), or compute with --accelerator cpu"
        )
    if found.accelerator == "mps" and found.count > 1:
        raise ConfigError(f"{found.count} processes with --accelerator mps: there is one such device only")


def _all(accelerator: str) -> int:
    return max(1, torch.cuda.device_count()) if accelerator == "cuda" else 1


def _number(values: Mapping[str, str], name: str, default: int | None = None) -> int:
    text = values.get(name)
    if text is None and default is not None:
        return default
    if text is None or not text.isdigit():
        raise ConfigError(f"the environment variable {name} should be a number, got {text!r}")
    return int(text)
