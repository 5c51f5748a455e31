"""The root of an experiment file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal, cast

import torch
from detcore_data import CocoMetric
from pydantic import BeforeValidator, Field

from detcore.component import Component, Part, make
from detcore.interfaces import Detector, Metric
from detcore.precision import has_bfloat16
from detcore.weights import LoadReport, load_weights
from detcore_train.interfaces import DataModule, Optimizer, Schedule, WeightAverage
from detcore_train.runfolder import EXPERIMENT, detector_folder
from detcore_train.schedules.step import StepSchedule

#: YAML reads 32 as a number.
Precision = Annotated[Literal["auto", "32", "bf16-mixed", "16-mixed"], BeforeValidator(str)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


class Experiment(Component):
    """A detector, its data and how it is trained: all that decides the result, nothing of the machine.

    The number of classes comes from the data; it is written nowhere.

    Args:
        model: The detector. Built with the experiment's seed, so equal experiments begin with equal weights.
        weights: Address of weights that the whole detector begins to train with: a checkpoint's or run's
            folder, a file, ``mmdet://PATH``, ``torchvision://RetinaNet_ResNet50_FPN_Weights.COCO_V1``. All of
            them have to fit. A run that is continued does not read them again.
        reinit: Parts of the detector that begin anew all the same (``head``, ``roi_head.bbox_head.fc_cls``):
            how to go on to another number of classes.
        data: Training and validation set.
        optimizer: What makes a step of the gradients.
        schedule: The learning rate over the run, as a factor on the optimizer's.
        epochs: Passes over the training set.
        metric: Evaluation on the validation set.
        monitor: The metric's number by which the best checkpoint is chosen; more is better.
        seed: Of the initial weights, the order of the images, augmentation, and all else that is random.
        precision: Arithmetic of the network: "32" single, "bf16-mixed" or "16-mixed" for mixed precision; "auto" is
            "bf16-mixed" on accelerators and processors that multiply bfloat16 in hardware, else "32".
        clip_grad_norm: Upper limit of the norm of all gradients together; None for no limit.
        clip_grad_value: Upper limit of each gradient's absolute value; None for no limit.
        accumulate: Batches whose gradients make one optimizer step, which takes their mean; what is left at the
            end of an epoch makes a smaller one. That is the gradient of one large batch where nothing looks at
            the whole batch: losses are divided by what each small batch counts (its positives), and batch
            normalisation takes its statistics over each.
        checkpoint_gradients: Whether the backward pass computes the inside of the backbone's layers anew, rather
            than the forward pass keeping it: less memory for more time, the same numbers.
        base_batch_size: Images per optimizer step that the learning rate is meant for: the rate is scaled by
            real / base. None takes the rate as it is.
        ema: Running average of the weights that is evaluated and saved in place of the last weights.
        sync_bn: Whether batch normalisation takes its statistics over all processes.
        patience: Epochs without a better value of ``monitor`` after which the run ends early; None for never.
        min_delta: How much a value has to be above the best to be better, for ``patience``.
        val_every: Epochs between evaluations; the last epoch is always evaluated.
        log_every: Optimizer steps between entries of the training log.
        keep_last: Newest checkpoints that are kept, beside the best.
        save_every: Optimizer steps between checkpoints within an epoch; None saves after each epoch only.
            A process that is killed loses at most so many steps.
        guard_gradients: Whether to stop where a gradient is NaN or infinite although the losses are not,
            before the step that would spoil the weights. Costs one look at all gradients per batch, and on
            a GPU waits for each backward pass. Not with "16-mixed", whose scaler skips such steps itself.
        deterministic: Whether a GPU may only use algorithms whose result does not differ from run to run; costs
            speed and memory. True stops at an operation that has none, "warn" warns of it. A CPU always does.
    """

    kind: ClassVar[str] = "experiments"

    def __init__(
        self,
        *,
        model: Part[Detector],
        weights: str | None = None,
        reinit: tuple[str, ...] = (),
        data: Part[DataModule],
        optimizer: Part[Optimizer],
        schedule: Part[Schedule] = StepSchedule.spec(),
        epochs: Count = 12,
        metric: Part[Metric] = CocoMetric.spec(),
        monitor: str = "AP",
        seed: Annotated[int, Field(ge=0)] = 0,
        precision: Precision = "32",
        clip_grad_norm: Positive | None = None,
        clip_grad_value: Positive | None = None,
        accumulate: Count = 1,
        checkpoint_gradients: bool = False,
        base_batch_size: Count | None = None,
        ema: Part[WeightAverage] | None = None,
        sync_bn: bool = False,
        patience: Count | None = None,
        min_delta: Annotated[float, Field(ge=0)] = 0.0,
        val_every: Count = 1,
        log_every: Count = 10,
        keep_last: Count = 2,
        save_every: Count | None = None,
        guard_gradients: bool = True,
        deterministic: bool | Literal["warn"] = False,
    ) -> None:
        if clip_grad_norm is not None and clip_grad_value is not None:
            raise ValueError("clip_grad_norm and clip_grad_value exclude each other; set one of them to null")
        if reinit and weights is None:
            raise ValueError(
                f"reinit={list(reinit)} is about loaded weights, but weights is not given: give their address, "
                "or leave out reinit"
            )
        if min_delta and patience is None:
            raise ValueError(
                f"min_delta={min_delta} is about patience, which is not given; leave out min_delta"
            )
        self.patience, self.min_delta, self.checkpoint_gradients = patience, min_delta, checkpoint_gradients
        self.weights, self.reinit = weights, reinit
        self.optimizer, self.schedule = make(optimizer), make(schedule)
        self.metric, self.ema = make(metric), make(ema)
        self.epochs, self.monitor, self.seed, self.precision = epochs, monitor, seed, precision
        self.clip_grad_norm, self.clip_grad_value = clip_grad_norm, clip_grad_value
        self.accumulate, self.base_batch_size, self.sync_bn = accumulate, base_batch_size, sync_bn
        self.val_every, self.log_every, self.keep_last = val_every, log_every, keep_last
        self.save_every, self.guard_gradients = save_every, guard_gradients
        self.deterministic = deterministic
        self.data = make(data)
        if patience is not None and self.data.val is None:
            raise ValueError(f"patience={patience} needs a validation set to judge by; give data.val")
        final = getattr(self.data, "final_epochs", 0)
        if final >= epochs:
            raise ValueError(
                f"data.final_epochs is {final}, but the run has only {epochs} epochs; give the training set those "
                "transforms instead, or raise epochs"
            )
        class_map = self.data.class_map
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.model = make(model, num_classes=len(class_map))
        self.model.class_map = class_map

    def load_weights(self) -> LoadReport | None:
        """Loads what training begins with; of a run, its best. Nothing where ``weights`` is not given.

        Raises:
            CheckpointError: They cannot be read, or do not fit what does not begin anew.
        """
        if self.weights is None:
            return None
        path = Path(self.weights).expanduser()
        address = str(detector_folder(path)) if (path / EXPERIMENT).is_file() else self.weights
        return load_weights(self.model, address, reinit=self.reinit)


def training_precision(precision: str, device: str) -> Literal["32", "bf16-mixed", "16-mixed"]:
    """An experiment's precision with "auto" resolved: "bf16-mixed" where the device has it in hardware, else "32".

    Args:
        precision: The experiment's.
        device: "cpu", "cuda" or "mps".
    """
    if precision == "auto":
        return "bf16-mixed" if has_bfloat16(torch.device(device)) else "32"
    return cast("Literal['32', 'bf16-mixed', '16-mixed']", precision)
