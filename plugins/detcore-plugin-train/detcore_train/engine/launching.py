"""Starting the processes of one machine, and ending all of them where one is lost."""

from __future__ import annotations

import atexit
import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch.strategies import DDPStrategy, Strategy
from lightning.pytorch.strategies.launchers.subprocess_script import _SubprocessScriptLauncher
from torch.nn.parallel import DistributedDataParallel

from detcore.errors import DetcoreError
from detcore_train.engine.layout import Layout
from detcore_train.engine.meeting import agents_store, of_this_start

#: Seconds between looks at the other processes.
_LOOK_EVERY = 1.0
#: Seconds that processes get to end by themselves, and to say why, once another is lost.
_GRACE = 20.0
#: What backends say when the connection to another process breaks, or it does not answer in time.
_LOST = re.compile(
    r"gloo|connection (closed|reset|refused)|broken pipe|socket|timed? ?out|timeout|nccl|process ?group"
    r"|rendezvous|tcpstore|remote process",
    re.IGNORECASE,
)


class ProcessLostError(DetcoreError, ConnectionError):
    """Another process of the run has ended or does not answer; says where the run stands and how to go on."""


class DataParallel(DDPStrategy):
    """Each process with a copy of the detector and a part of each batch; gradients are averaged.

    Parameters that a batch does not use get no gradient, as in a single process, and hold nobody up. Buffers
    are not broadcast before each forward pass: processes may differ in their number of validation batches.

    Args:
        environment: Who starts the processes.
        timeout: Seconds that a process waits for the others.
    """

    def __init__(self, environment: ClusterEnvironment, timeout: float) -> None:
        super().__init__(
            cluster_environment=environment,
            timeout=timedelta(seconds=timeout),
            broadcast_buffers=False,
            find_unused_parameters=True,
        )

    def setup_distributed(self) -> None:
        """Connects the processes."""
        waiting = self._timeout or timedelta(minutes=10)
        store = (
            agents_store(waiting) if isinstance(self.cluster_environment, TorchElasticEnvironment) else None
        )
        if store is not None and not dist.is_initialized():
            self.set_world_ranks()
            dist.init_process_group(
                self._get_process_group_backend(),
                store=of_this_start(store, self.global_rank, self.world_size, waiting),
                rank=self.global_rank,
                world_size=self.world_size,
                timeout=waiting,
                device_id=self.root_device if self.root_device.type == "cuda" else None,
            )
            atexit.register(_leave)
        super().setup_distributed()

    def configure_ddp(self) -> None:
        """Wraps the detector."""
        _take_the_notice(self.root_device)
        super().configure_ddp()

    def _configure_launcher(self) -> None:
        if self.cluster_environment is not None:
            self._launcher = _Launch(self.cluster_environment, self.num_processes, self.num_nodes)


def _leave() -> None:
    """Ends the communication over NCCL, which warns where the program does not; gloo's ends with the program."""
    if dist.is_initialized() and dist.get_backend() == "nccl":
        dist.destroy_process_group()


def _take_the_notice(device: torch.device) -> None:
    """Lets torch say once, where nobody reads it, that looking for unused parameters found none.

    It says so from C++, where no filter of warnings reaches it.
    """
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        layer = DistributedDataParallel(torch.nn.Linear(1, 1).to(device), find_unused_parameters=True)
        layer(torch.ones(1, 1, device=device)).backward()
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def strategy_of(layout: Layout, timeout: float) -> Strategy | str:
    """The trainer's strategy for a layout."""
    if layout.count == 1:
        return "auto"
    return DataParallel(environment_of(layout), timeout)


def environment_of(layout: Layout) -> ClusterEnvironment:
    """What tells the trainer its rank and where the processes meet."""
    if layout.launcher == "torchrun":
        return TorchElasticEnvironment()
    if layout.launcher == "slurm":
        # our own handler saves on SIGTERM; the trainer's would requeue the job with a checkpoint of its own
        return SLURMEnvironment(auto_requeue=False)
    return LightningEnvironment()


class _Launch(_SubprocessScriptLauncher):
    """Starts the other processes of this machine, and leaves none behind."""

    def launch(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if self.cluster_environment.creates_processes_externally:
            if isinstance(self.cluster_environment, LightningEnvironment):
                _watch_starter()
            return super().launch(function, *args, **kwargs)
        self.cluster_environment.validate_settings(self.num_processes, self.num_nodes)
        self._call_children_scripts()
        threading.Thread(target=self._watch, name="processes", daemon=True).start()
        try:
            return function(*args, **{k: v for k, v in kwargs.items() if k != "trainer"})
        except BaseException:
            self._end(_GRACE)
            raise

    def _watch(self) -> None:
        """Ends this process if another one was lost and this one does not notice by itself."""
        lost: dict[int, int] = {}
        while not lost and any(process.poll() is None for process in self.procs):
            time.sleep(_LOOK_EVERY)
            lost = {i: p.returncode for i, p in enumerate(self.procs, start=1) if p.poll()}
        if not lost:
            return
        time.sleep(_GRACE)  # an exception of this process, with its cause, says more than what follows
        which = ", ".join(f"{rank} ({how(code)})" for rank, code in lost.items())
        sys.stderr.write(f"process {which} of this machine was lost; ending the others\n")
        sys.stderr.flush()
        self._end(0.0)
        os._exit(1)

    def _end(self, grace: float) -> None:
        until = time.monotonic() + grace
        while time.monotonic() < until and any(process.poll() is None for process in self.procs):
            time.sleep(0.05)
        for process in self.procs:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)


def _watch_starter() -> None:
    """Ends this process soon after the one that started it has gone."""
    starter = os.getppid()

    def watch() -> None:
        while os.getppid() == starter:
            time.sleep(_LOOK_EVERY)
        time.sleep(_GRACE)
        sys.stderr.write(f"process {os.getpid()}: the process that started it is gone; ending\n")
        sys.stderr.flush()
        os._exit(1)

    threading.Thread(target=watch, name="starter", daemon=True).start()


def how(code: int) -> str:
    """What an exit code means."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


@contextmanager
def failing_together(layout: Layout, position: Callable[[], str], checkpoint: Path) -> Iterator[None]:
    """Inside, an error says which process it comes from; a broken connection becomes a ``ProcessLostError``.

    Args:
        layout: The processes.
        position: Where the run stands, in words.
        checkpoint: What a resumed run continues from.

    Raises:
        ProcessLostError: Another process was lost.
    """
    try:
        yield
    except Exception as error:
        if layout.count == 1:
            raise
        if is_lost(error):
            raise ProcessLostError(_advice(layout, position(), checkpoint, error)) from error
        where = f"process {layout.rank} of {layout.count} on {socket.gethostname()}"
        sys.stderr.write(f"{where} failed at {position()}:\n")
        sys.stderr.flush()
        raise


def is_lost(error: BaseException) -> bool:
    """Whether an error is the backend's way to say that another process does not answer."""
    if isinstance(error, DetcoreError):
        return False
    if isinstance(error, dist.DistError):
        return True
    return type(error) is RuntimeError and _LOST.search(str(error)) is not None


def _advice(layout: Layout, position: str, checkpoint: Path, error: Exception) -> str:
    saved = f"continues from {checkpoint}" if checkpoint.is_dir() else "begins anew: nothing was saved yet"
    return (
        f"process {layout.rank} of {layout.count} lost the connection to another one at {position} "
        f"({' '.join(str(error).split())[:160]}). Look for the first error above, or in the other machines' output; "
        "a process that was killed leaves none (out of memory, a machine that is gone). The same command with "
        f"--resume {saved}"
    )
