"""Training an experiment."""

from __future__ import annotations

import json
import logging
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import Callback, Trainer
from rich.console import Console

from detcore.config import parse_yaml, to_yaml
from detcore.errors import CheckpointError, ConfigError
from detcore.serialize import dump
from detcore_train.durable import disk_errors
from detcore_train.engine.averaging import AverageWeights
from detcore_train.engine.checkpointing import Checkpointing
from detcore_train.engine.determinism import deterministic_arithmetic
from detcore_train.engine.display import Display
from detcore_train.engine.early_stopping import EarlyStopping
from detcore_train.engine.launching import environment_of, failing_together, strategy_of
from detcore_train.engine.layout import Accelerator, Layout
from detcore_train.engine.logbook import Logbook
from detcore_train.engine.module import TrainingData, TrainingModule
from detcore_train.engine.parameters import ParameterLog
from detcore_train.engine.recomputing import recomputing
from detcore_train.engine.together import Together
from detcore_train.experiment import Experiment, training_precision
from detcore_train.runfolder import LOADED, Checkpoint, RunFolder
from detcore_train.runlock import RunLock, locked

__all__ = ["Accelerator", "FitResult", "fit", "quiet"]


@dataclass(frozen=True)
class FitResult:
    """How a training run ended.

    Args:
        run: Its folder.
        values: Numbers of the last evaluation; empty where there was none.
        best: The best value of the monitored number, and the epoch that reached it.
        seconds: Time of this call.
        main: Whether this is the first process of the run, the one that reports and writes.
    """

    run: Path
    values: Mapping[str, float | None]
    best: tuple[float | None, int | None]
    seconds: float
    main: bool = True


def fit(
    experiment: Experiment,
    run: str | Path,
    *,
    resume: bool = False,
    accelerator: Accelerator = "auto",
    devices: int | Literal["auto"] = "auto",
    nodes: int | Literal["auto"] = "auto",
    timeout: float = 600.0,
    console: Console | None = None,
    lock: RunLock | None = None,
) -> FitResult:
    """Trains an experiment.

    The first process holds the folder from before it writes anything until the end; a second run gets an error.

    Args:
        experiment: What to train. Its model is trained in place.
        run: Folder of the run: ``last/`` and ``best/`` (detector checkpoints), logs, the resolved experiment.
        resume: Continue the run in that folder, if there is one.
        accelerator: What to compute on; "auto" takes what is there.
        devices: How many of them on this machine; "auto" for what torchrun or Slurm started, else all there are.
        nodes: How many machines; "auto" for what torchrun or Slurm started, else one.
        timeout: Seconds that a process waits for the others within a step, before it takes them for lost.
        console: Where the first process reports; standard output where None.
        lock: The folder's lock, where the caller holds it already.

    Raises:
        RunInUseError: Another run writes into the folder.
        ConfigError: The folder holds a run and ``resume`` is not set, or that run is of another model; or the
            processes contradict what is there, or each other.
        CheckpointError: The run's checkpoints are damaged, or the weights to begin with do not fit.
        NonFiniteLossError: A loss became NaN or infinite.
        ProcessLostError: Another process of the run has ended.
        TrainingInterrupted: Ctrl-C or SIGTERM; the state is saved.
    """
    begin = time.perf_counter()
    layout = Layout.find(accelerator, devices, nodes)
    _check_sync(experiment, layout)
    console = (console or Console()) if layout.rank == 0 else Console(quiet=True)
    folder = RunFolder(run)
    if lock is not None and not lock.holds(folder.path):
        raise ConfigError(f"lock: it is not held, or on another folder than {folder.path}")
    with (
        locked(folder.path, layout.rank, console) if lock is None else nullcontext(lock) as held,
        quiet(everything=layout.rank > 0),
        deterministic_arithmetic(experiment.deterministic, layout.accelerator),
    ):
        module = TrainingModule(experiment)
        average = AverageWeights(experiment.ema)
        checkpointing = Checkpointing(
            folder, experiment.monitor, experiment.keep_last, average, experiment.save_every, lock=held
        )
        callbacks = [
            Together(),
            _Position(),
            average,
            Logbook(folder.path, experiment.log_every),
            ParameterLog(folder.path, console),
            Display(console),
            EarlyStopping(experiment.monitor, experiment.patience, experiment.min_delta, console),
            checkpointing,
        ]
        trainer = _trainer(experiment, folder, callbacks, layout, timeout)
        module.lr_scale = _lr_scale(experiment, trainer, console)
        start = _prepare(experiment, folder, trainer, console, resume=resume)
        data = TrainingData(module)
        try:
            with (
                checkpointing.signals(),
                failing_together(layout, module.where, folder.last),
                recomputing(experiment.model, experiment.checkpoint_gradients),
            ):
                ckpt_path = None if start is None else str(start.training)
                trainer.fit(module, datamodule=data, ckpt_path=ckpt_path, weights_only=True)
        finally:
            data.close()
    best = (checkpointing.best, checkpointing.best_epoch)
    return FitResult(folder.path, module.values, best, time.perf_counter() - begin, layout.rank == 0)


class _Position(Callback):
    """Counts the batches, before any other callback looks at the count."""

    def on_train_epoch_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Makes sure that the last epoch is evaluated."""
        if trainer.current_epoch + 1 == pl_module.experiment.epochs:
            trainer.check_val_every_n_epoch = 1

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        """Counts one."""
        pl_module.batches_done += 1


def _trainer(
    experiment: Experiment,
    folder: RunFolder,
    callbacks: list[Callback],
    layout: Layout,
    timeout: float,
) -> Trainer:
    clip = experiment.clip_grad_norm or experiment.clip_grad_value
    precision = training_precision(experiment.precision, layout.accelerator)
    return Trainer(
        accelerator=layout.accelerator,
        devices=layout.devices,
        num_nodes=layout.nodes,
        strategy=strategy_of(layout, timeout),
        plugins=[environment_of(layout)] if layout.count == 1 else None,
        precision="32-true" if precision == "32" else precision,
        max_epochs=experiment.epochs,
        callbacks=callbacks,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        sync_batchnorm=experiment.sync_bn,
        accumulate_grad_batches=experiment.accumulate,
        gradient_clip_val=clip,
        gradient_clip_algorithm="norm" if experiment.clip_grad_norm else "value" if clip else None,
        check_val_every_n_epoch=experiment.val_every,
        default_root_dir=folder.path,
        inference_mode=False,
    )


def _check_sync(experiment: Experiment, layout: Layout) -> None:
    """Refuses what torch refuses in the midst of the first step."""
    if experiment.sync_bn and layout.count > 1 and layout.accelerator != "cuda":
        raise ConfigError(
            f"sync_bn: batch normalisation over all processes works on CUDA only, not on {layout.accelerator}; set "
            "sync_bn to false, and freeze batch normalisation or use another norm where batches are small"
        )


def _lr_scale(experiment: Experiment, trainer: Trainer, console: Console) -> float:
    if experiment.base_batch_size is None:
        return 1.0
    real = experiment.data.batch_size * trainer.world_size * experiment.accumulate
    scale = real / experiment.base_batch_size
    if trainer.is_global_zero:
        console.print(
            f"learning rate scaled by {scale:g}: {real} images per step, "
            f"base_batch_size {experiment.base_batch_size}"
        )
    return scale


def _prepare(
    experiment: Experiment, folder: RunFolder, trainer: Trainer, console: Console, *, resume: bool
) -> Checkpoint | None:
    """Writes the experiment into the folder; returns the checkpoint to continue from."""
    start = None
    if resume:
        start = folder.resumable(lambda text: console.print(f"[yellow]warning:[/] {text}", soft_wrap=True))
    if start is None and folder.checkpoints():
        raise ConfigError(
            f"{folder.path} already holds a training run; continue it with --resume, or choose another "
            "folder with --out"
        )
    report = experiment.load_weights() if start is None else None
    if not trainer.is_global_zero:
        return start
    with disk_errors(f"{folder.path}: what a killed run left", "Make room, and continue with --resume"):
        folder.recover(start, experiment.keep_last)
    objects: dict[str, Any] = {}
    config = dump(experiment, objects)
    _make_absolute(config.get("data"))
    if start is not None:
        _check_same_run(folder, config)
        console.print(f"continuing {folder.path} after {start.step} steps", soft_wrap=True)
    folder.write_experiment(to_yaml(config))
    if report is not None:
        console.print(str(report), soft_wrap=True, highlight=False, markup=False)
        (folder.path / LOADED).write_text(json.dumps(report.to_dict(), indent=1), encoding="utf-8")
    return start


def _make_absolute(data: Any) -> None:
    """The data's root, wherever the run is looked at from."""
    if isinstance(data, dict) and isinstance(data.get("root"), str):
        data["root"] = str(Path(data["root"]).resolve())


def _check_same_run(folder: RunFolder, config: Mapping[str, Any]) -> None:
    """Checks that the run in the folder trained the same model on the same batches.

    Raises:
        CheckpointError: The folder's experiment cannot be read.
        ConfigError: It is another model, or another number of images per batch.
    """
    try:
        before = parse_yaml(folder.experiment.read_text(encoding="utf-8"), str(folder.experiment)).data
    except (OSError, ConfigError) as cause:
        raise CheckpointError(
            f"{folder.experiment}: cannot be read ({cause}), so the run cannot be resumed"
        ) from cause
    for part in ("model", "optimizer"):
        if before.get(part) != config.get(part):
            raise ConfigError(
                f"{folder.path} was trained with another {part}; resume with the same one, or choose another "
                "folder with --out"
            )


@contextmanager
def quiet(*, everything: bool = False) -> Iterator[None]:
    """Without the trainer's notices and the warnings that a user can do nothing about.

    Args:
        everything: Whether other warnings are left out too: the first process of a run gives the same ones.
    """
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"lightning\.")
        warnings.filterwarnings("ignore", message=".*suggested max number of worker.*")
        warnings.filterwarnings("ignore", message=".*isinstance\\(treespec, LeafSpec\\).*")
        if everything:
            warnings.simplefilter("ignore")
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
