"""Transforms of albumentations on examples."""

from __future__ import annotations

import inspect
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, TypeAlias, cast

import numpy as np
import torch
from pydantic import BeforeValidator, Field
from torch import Tensor
from torchvision import tv_tensors

from detcore.errors import DataError
from detcore.interfaces import Example, Transform
from detcore.structures import ImageGeometry
from detcore_augment import albumentations_names
from detcore_augment.albumentations_names import ALLOWED, COMPOSITIONS, plain
from detcore_augment.objects import Leftover, MinRatio, MinSize, masks_of, trimmed, with_contents

Steps: TypeAlias = Annotated[tuple[Mapping[str, Any], ...], Field(min_length=1), BeforeValidator(plain)]


class Albumentations(Transform):
    """Transforms of the package albumentations (Buslaev et al., arXiv 1809.06839), version 2.0 (MIT licence).

    Needs ``pip install "detcore-plugin-augment[albumentations]"``; nothing of it is imported before one is made.
    Boxes, masks, labels and regions to ignore go along. Random numbers come from torch's global generator, by a
    seed that is drawn from it for each example. Where a transform moves pixels, the result is a picture of its
    own: the way back to the file is lost.

    Args:
        transforms: Applied in order. Each is a mapping with the ``type`` and the parameters
            (``{type: HorizontalFlip, p: 0.5}``, those inside of a ``OneOf`` or ``SomeOf`` under ``transforms``), what
            albumentations' own ``to_dict`` gives, or, in Python, a transform of albumentations. Only names of
            albumentations itself are accepted, and of these only those that need nothing but an image and its
            objects, and keep it uint8.
        min_visibility: Rows of which less than this fraction of the box is in the picture are left out, regions to
            ignore included.
        min_bbox_size: Objects with a side below this are left out, in pixels.
        leftover: What becomes of objects whose mask has no pixel left: regions to ignore, or nothing.

    Raises:
        ConfigError: The package is missing; a name is not accepted; or parameters are wrong.
    """

    def __init__(
        self,
        *,
        transforms: Steps,
        min_visibility: MinRatio = 0.0,
        min_bbox_size: MinSize = 1.0,
        leftover: Leftover = "ignore",
    ) -> None:
        package = albumentations_names.package()
        steps = [_made(package, step, f"transforms.{i}") for i, step in enumerate(transforms)]
        boxes = package.BboxParams(
            format="pascal_voc", label_fields=["rows"], clip=True, min_visibility=min_visibility
        )
        self._moves = any(isinstance(leaf, package.DualTransform) for leaf in _leaves(steps))
        self._pipeline = package.Compose(steps, bbox_params=boxes if self._moves else None)
        self.min_bbox_size, self.leftover = min_bbox_size, leftover

    def __call__(self, example: Example) -> Example:
        """See :class:`~detcore.interfaces.Transform`.

        Raises:
            DataError: A transform fails on the image, or makes of it what is no uint8 RGB; names the file.
            NotImplementedError: The image has no pixels (it is on the meta device).
        """
        if example["image"].is_meta:
            raise NotImplementedError(
                "albumentations needs the pixels of an image, which is on the meta device"
            )
        seed = int(torch.randint(2**62, ()))
        # one generator for all: with ``set_random_seed`` every transform would draw the same numbers
        self._pipeline.set_random_state(np.random.default_rng(seed), random.Random(seed))
        try:
            found = self._pipeline(**_inputs(example, with_objects=self._moves))
        except Exception as error:  # whatever a foreign package raises does not tell the file
            raise DataError(f"{example['file']}: albumentations: {error}") from error
        image = found["image"]
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise DataError(
                f"{example['file']}: albumentations gave {image.dtype} {list(image.shape)}; "
                "transforms should keep a uint8 RGB image"
            )
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()
        if not self._moves:
            return cast(Example, {**example, "image": tv_tensors.Image(pixels)})
        return trimmed(
            _result(example, pixels, found),
            min_bbox_size=self.min_bbox_size,
            min_area_ratio=0.0,
            leftover=self.leftover,
        )


def _result(example: Example, image: Tensor, found: Mapping[str, Any]) -> Example:
    size = (int(image.shape[1]), int(image.shape[2]))
    rows = torch.tensor([round(float(row)) for row in found["rows"]], dtype=torch.int64)
    boxes = torch.tensor(np.asarray(found["bboxes"], dtype=np.float64).reshape(-1, 4)).float()
    masks = masks_of(example)
    if masks is not None:
        seen = [torch.from_numpy(np.array(found["masks"][row])) > 0 for row in rows.tolist()]
        masks = torch.stack(seen) if seen else masks.new_zeros((0, *size))
    return with_contents(
        example,
        image=image,
        boxes=boxes,
        labels=example["labels"][rows],
        ignore=example["ignore"][rows],
        masks=masks,
        geometry=ImageGeometry(size),
    )


def _made(package: Any, step: Mapping[str, Any], path: str) -> Any:
    """The transform that a plain mapping describes; its name was checked, and is looked up nowhere else."""
    name = step["type"]
    made = getattr(package, name, None) if name in ALLOWED else None
    if made is None:
        raise ValueError(f"{path}: albumentations {package.__version__} has no {name}; install a newer one")
    arguments = {key: value for key, value in step.items() if key != "type"}
    if name in COMPOSITIONS:
        inner = arguments.get("transforms")
        if not isinstance(inner, Sequence) or not inner:
            raise ValueError(f"{path}: {name} needs a list of transforms, got {inner!r}")
        arguments["transforms"] = [
            _made(package, one, f"{path}.transforms.{i}") for i, one in enumerate(inner)
        ]
    known = [known for known in inspect.signature(made.__init__).parameters if known != "self"]
    for key in arguments:  # albumentations itself would warn, and go on without it
        if key not in known:
            raise ValueError(f"{path}: {name} has no parameter {key!r}; it has {', '.join(known)}")
    try:
        return made(**arguments)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: {name}: {error}") from error


def _leaves(steps: Sequence[Any]) -> Iterator[Any]:
    for step in steps:
        inner = getattr(step, "transforms", None)
        if inner is None:
            yield step
        else:
            yield from _leaves(inner)


def _inputs(example: Example, *, with_objects: bool) -> dict[str, Any]:
    image = np.array(example["image"].as_subclass(Tensor).permute(1, 2, 0).numpy(), order="C")
    if not with_objects:
        return {"image": image}
    boxes = example["boxes"].as_subclass(Tensor)
    inputs: dict[str, Any] = {
        "image": image,
        "bboxes": boxes.double().numpy(),
        "rows": list(range(len(boxes))),
    }
    masks = masks_of(example)
    if masks is not None and len(masks):
        inputs["masks"] = [np.array(mask) for mask in masks.to(torch.uint8).numpy()]
    return inputs
