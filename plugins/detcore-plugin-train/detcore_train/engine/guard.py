"""Stopping before a step that would spoil the weights, and keeping what is needed to find out why."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from detcore_data import ExampleBatch
from safetensors import SafetensorError
from torch import Tensor, nn

from detcore import __version__
from detcore.distributed import world_size
from detcore.errors import DetcoreError
from detcore.interfaces import Detector
from detcore_train.bad_batch import Circumstances, write_bad_batch
from detcore_train.engine.averaging import swap_in
from detcore_train.experiment import training_precision
from detcore_train.runfolder import EXPERIMENT

if TYPE_CHECKING:
    from detcore_train.engine.module import TrainingModule

_REMEDY = "else lower optimizer.lr, lengthen schedule.warmup_steps, or set clip_grad_norm"
#: Names of parameters that a message lists.
_LISTED = 5


class NonFiniteLossError(DetcoreError, ArithmeticError):
    """A loss term is NaN or infinite; names the term, the step, the images, and where the batch was saved."""


class NonFiniteGradientError(DetcoreError, ArithmeticError):
    """A gradient is NaN or infinite although the losses are not; names the parameters and the images."""


class Guard:
    """Looks at each batch's losses and gradients before the weights are changed.

    Args:
        gradients: Whether to look at gradients.
    """

    def __init__(self, *, gradients: bool) -> None:
        self.gradients = gradients
        self._buffers: dict[str, Tensor] = {}
        self._random: dict[str, Tensor] = {}

    @torch.no_grad()
    def before(self, model: nn.Module, device: torch.device) -> None:
        """Remembers what a forward pass changes: buffers, and the state of the random numbers."""
        present = dict(model.named_buffers())
        if _like(present, self._buffers):
            torch._foreach_copy_(list(self._buffers.values()), list(present.values()))
        else:
            self._buffers = {name: buffer.detach().clone() for name, buffer in present.items()}
        self._random = {"cpu": torch.get_rng_state()}
        if device.type == "cuda":
            self._random["cuda"] = torch.cuda.get_rng_state(device)

    def check(self, module: TrainingModule) -> None:
        """Stops the training where the batch must not change the weights. Every process takes part.

        Raises:
            NonFiniteLossError: A loss term is NaN or infinite.
            NonFiniteGradientError: A gradient is.
        """
        bad = [name for name, value in module.terms.items() if not math.isfinite(value)]
        gradients = [] if bad or not self.gradients else bad_gradients(module.model)
        ranks, gradients_only = _agree(bool(bad), bool(gradients), module.device)
        if not ranks:
            return
        if not gradients_only:
            gradients = []  # of another process's loss, with which ours were averaged
        message = self._keep(module, bad, gradients) if bad or gradients else ""
        if world_size() > 1:
            dist.barrier()  # who stops first would end the others while they write
        if not message:
            first = _folder(module, ranks[0])
            message = (
                f"{_when(module)}: stopped, since process {ranks[0]} met a loss or gradient that is not finite; it "
                f"has kept the batch in {first}: look with `detcore replay {first}`"
            )
        raise (NonFiniteGradientError if gradients_only else NonFiniteLossError)(message)

    def _keep(self, module: TrainingModule, bad: list[str], gradients: list[str]) -> str:
        """Writes the batch; returns what there is to say."""
        path = _folder(module, module.global_rank)
        batch = _batch(module)
        images = ", ".join(f"{i} ({f})" for i, f in zip(batch.image_ids, batch.files, strict=True))
        if bad:
            what = "the loss term " + ", ".join(f"{name!r} is {module.terms[name]}" for name in bad)
        else:
            listed = ", ".join(map(repr, gradients[:_LISTED])) + (", ..." if gradients[_LISTED:] else "")
            what = (
                f"the losses are finite, but the gradients of {len(gradients)} parameters are not ({listed}),"
            )
        try:
            self._write(path, module, gradients)
        except (OSError, SafetensorError, DetcoreError) as error:
            kept = f"They could not be written to {path} ({error})"
        else:
            kept = f"Batch and weights are kept: `detcore replay {path}` shows where it arises"
        return (
            f"{_when(module)}: {what} in the batch of images {images}. {kept}. Look at these boxes; {_REMEDY}"
        )

    def _write(self, path: Path, module: TrainingModule, gradients: list[str]) -> None:
        model: Detector = module.model
        circumstances = Circumstances(
            reason="gradient" if gradients else "loss",
            losses=dict(module.terms),
            gradients=tuple(gradients),
            epoch=module.progress.epoch + 1,
            step=module.progress.step,
            seed=module.experiment.seed,
            position=module.batches_done,
            rank=module.global_rank,
            processes=world_size(),
            precision=training_precision(module.experiment.precision, module.device.type),
            device=str(module.device),
            evaluating=tuple(name for name, part in model.named_modules() if not part.training),
            versions={"torch": torch.__version__, "detcore": __version__},
        )
        saved = {name: buffer for name, buffer in self._buffers.items() if name in model.state_dict()}
        after = swap_in(model, saved)
        try:
            experiment = Path(module.trainer.default_root_dir) / EXPERIMENT
            write_bad_batch(path, _batch(module), circumstances, model, self._random, experiment)
        finally:
            swap_in(model, after)


def _batch(module: TrainingModule) -> ExampleBatch:
    if module.batch is None:
        raise RuntimeError("a guard looks at a batch while it is trained on")
    return module.batch


def bad_gradients(model: nn.Module) -> list[str]:
    """The parameters whose gradient has a NaN or an infinity. One number is brought to the CPU, more only then."""
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    if not found or math.isfinite(_largest(list(found.values()))):
        return []
    return [name for name, gradient in found.items() if not bool(gradient.isfinite().all())]


def _largest(gradients: list[Tensor]) -> float:
    """The largest absolute value, which cannot overflow as a sum of squares can."""
    largest = torch.nn.utils.get_total_norm(gradients, norm_type=math.inf)
    return float(largest.full_tensor() if hasattr(largest, "full_tensor") else largest)


def _like(one: Mapping[str, Tensor], two: Mapping[str, Tensor]) -> bool:
    return one.keys() == two.keys() and all(
        a.shape == b.shape and a.dtype == b.dtype and a.device == b.device
        for a, b in zip(one.values(), two.values(), strict=True)
    )


def _agree(loss: bool, gradient: bool, device: torch.device) -> tuple[list[int], bool]:
    """The processes with a bad loss, else those with a bad gradient; and whether it is only that. Known to all."""
    if world_size() == 1:
        return ([0] if loss or gradient else []), gradient and not loss
    flags = torch.zeros((2, world_size()), device=device)
    flags[:, dist.get_rank()] = torch.tensor([loss, gradient], dtype=flags.dtype)
    dist.all_reduce(flags)
    losses, gradients = ([rank for rank, flag in enumerate(row) if flag] for row in flags.tolist())
    return losses or gradients, not losses and bool(gradients)


def _when(module: TrainingModule) -> str:
    return f"epoch {module.progress.epoch + 1}, step {module.progress.step + 1}"


def _folder(module: TrainingModule, rank: int) -> Path:
    name = f"bad-batch-{module.progress.step + 1:08d}" + (f"-process-{rank}" if world_size() > 1 else "")
    return Path(module.trainer.default_root_dir) / name
