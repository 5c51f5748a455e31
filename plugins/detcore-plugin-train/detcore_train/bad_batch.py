"""A batch that could not be trained on, on disk: all that computing its losses again needs. Nothing is pickled."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from detcore_data import ExampleBatch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from detcore.checkpoint import load, save
from detcore.errors import CheckpointError
from detcore.interfaces import Detector
from detcore.masks import Masks
from detcore.structures import ImageGeometry, Targets
from detcore_train.durable import new_folder

ABOUT, TENSORS, DETECTOR = "batch.json", "batch.safetensors", "detector"
_TARGETS = ("boxes", "labels", "valid", "ignore", "semantic")
_MASKS = ("values", "offsets", "sizes", "origins")


@dataclass(frozen=True)
class Circumstances:
    """When and how the batch was met.

    Args:
        reason: What is not finite: "loss" or "gradient".
        losses: Value of each loss term.
        gradients: Parameters whose gradient is not finite.
        epoch: From 1.
        step: Optimizer steps taken before it.
        seed: Of the run.
        position: Batches trained on before it.
        rank: The process that met it.
        processes: How many there were.
        precision: Of the network's arithmetic.
        device: What it was computed on.
        evaluating: Modules that were in evaluation mode while the others were training.
        versions: Of torch and of detcore.
    """

    reason: str
    losses: Mapping[str, float]
    gradients: tuple[str, ...] = ()
    epoch: int = 1
    step: int = 0
    seed: int = 0
    position: int = 0
    rank: int = 0
    processes: int = 1
    precision: str = "32"
    device: str = "cpu"
    evaluating: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class BadBatch:
    """A batch, its circumstances, and the random numbers' state before its forward pass.

    Args:
        path: The folder.
        batch: Images, ground truth, ids and files.
        circumstances: When and how it was met.
        random: State of torch's generators, by device type.
    """

    path: Path
    batch: ExampleBatch
    circumstances: Circumstances
    random: Mapping[str, Tensor]

    def detector(self, device: torch.device | str = "cpu") -> Detector:
        """The detector as it was before the forward pass, each module in its mode.

        Raises:
            CheckpointError: Its files are damaged.
            ConfigError: It cannot be built with what is installed here.
        """
        detector = load(self.path / DETECTOR, device=device).to(memory_format=torch.channels_last).train()
        for name, module in detector.named_modules():
            module.training = name not in self.circumstances.evaluating
        return detector


def write_bad_batch(
    path: Path,
    batch: ExampleBatch,
    circumstances: Circumstances,
    detector: Detector,
    random: Mapping[str, Tensor],
    experiment: Path,
) -> None:
    """Writes everything, or nothing where it fails.

    Args:
        path: The folder, which is replaced.
        batch: Images and ground truth.
        circumstances: When and how it was met.
        detector: As it was before the forward pass.
        random: State of torch's generators, by device type.
        experiment: The run's resolved configuration, copied where it is there.

    Raises:
        OSError: The disk is full or broken.
        ConfigError: A part of the detector is of a class that is not registered.
    """
    with new_folder(path) as folder:
        save(detector, folder / DETECTOR)
        tensors = {**_tensors(batch), **{f"random.{name}": state for name, state in random.items()}}
        # copies, since a file must not hold the same memory twice
        save_file({n: t.detach().cpu().contiguous().clone() for n, t in tensors.items()}, folder / TENSORS)
        about = asdict(circumstances) | {"losses": {n: repr(v) for n, v in circumstances.losses.items()}}
        images = [
            {"id": i, "file": f, "geometry": asdict(g)}
            for i, f, g in zip(batch.image_ids, batch.files, batch.geometry, strict=True)
        ]
        masks = batch.targets.masks
        about |= {"images": images, "mask_size": None if masks is None else masks.image_size}
        (folder / ABOUT).write_text(json.dumps(about, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        if experiment.is_file():
            shutil.copyfile(experiment, folder / experiment.name)


def read_bad_batch(path: Path) -> BadBatch:
    """The inverse of :func:`write_bad_batch`.

    Raises:
        CheckpointError: There is none, or a file is damaged; the message names it.
    """
    if not (path / ABOUT).is_file():
        raise CheckpointError(
            f"{path}: no {ABOUT} in it; give the folder bad-batch-STEP that stopped training wrote"
        )
    try:
        about = json.loads((path / ABOUT).read_text(encoding="utf-8"))
        images, mask_size = about.pop("images"), about.pop("mask_size")
        about["losses"] = {name: float(value) for name, value in about["losses"].items()}
        about |= {name: tuple(about[name]) for name in ("gradients", "evaluating")}
        circumstances = Circumstances(**about)
        geometry = [ImageGeometry(**{k: tuple(v) for k, v in i["geometry"].items()}) for i in images]
    except (ValueError, KeyError, TypeError, AttributeError) as cause:
        raise CheckpointError(f"{path / ABOUT}: damaged ({cause})") from cause
    try:
        tensors = load_file(path / TENSORS)
        batch = ExampleBatch(
            images=tuple(tensors[f"images.{i}"] for i in range(len(images))),
            targets=_targets(tensors, mask_size),
            geometry=tuple(geometry),
            image_ids=tuple(image["id"] for image in images),
            files=tuple(image["file"] for image in images),
        )
    except (SafetensorError, OSError, KeyError) as cause:
        raise CheckpointError(f"{path / TENSORS}: damaged or missing ({cause})") from cause
    random = {n.removeprefix("random."): t for n, t in tensors.items() if n.startswith("random.")}
    return BadBatch(path, batch, circumstances, random)


def single(batch: ExampleBatch, index: int, rows: Tensor | None = None) -> ExampleBatch:
    """One image of a batch, with all of its ground truth or some of it.

    Args:
        batch: The batch.
        index: Which image.
        rows: Which rows of the ground truth count [M]; all where None.
    """
    part = {name: getattr(batch.targets, name)[index : index + 1] for name in _TARGETS[:4]}
    if rows is not None:
        part["valid"] = part["valid"] & rows
        part["boxes"] = part["boxes"].where(part["valid"][..., None], 0)  # padding holds zeros
        part["labels"] = part["labels"].where(part["valid"], 0)
        part["ignore"] = part["ignore"] & part["valid"]
    semantic, masks = batch.targets.semantic, batch.targets.masks
    if masks is not None:
        taken = {name: getattr(masks, name)[index : index + 1] for name in _MASKS[1:]}
        masks = dataclasses.replace(masks, **taken)  # offsets lead into the values of the whole batch
    targets = Targets(**part, masks=masks, semantic=None if semantic is None else semantic[index : index + 1])
    return ExampleBatch(
        batch.images[index : index + 1],
        targets,
        batch.geometry[index : index + 1],
        batch.image_ids[index : index + 1],
        batch.files[index : index + 1],
    )


def _tensors(batch: ExampleBatch) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {f"images.{i}": image for i, image in enumerate(batch.images)}
    for name in _TARGETS:
        value = getattr(batch.targets, name)
        if value is not None:
            found[f"targets.{name}"] = value
    if batch.targets.masks is not None:
        found |= {f"masks.{name}": getattr(batch.targets.masks, name) for name in _MASKS}
    return found


def _targets(tensors: Mapping[str, Tensor], mask_size: Any) -> Targets:
    masks = None
    if mask_size is not None:
        masks = Masks(**{name: tensors[f"masks.{name}"] for name in _MASKS}, image_size=tuple(mask_size))
    found = {name: tensors.get(f"targets.{name}") for name in _TARGETS}
    return Targets(**{name: value for name, value in found.items() if value is not None}, masks=masks)
