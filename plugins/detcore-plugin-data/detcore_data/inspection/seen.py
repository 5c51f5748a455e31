"""Objects as the network sees them: after the dataset's transforms, without their pixels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torchvision import tv_tensors

from detcore.interfaces import Example, Transform
from detcore.structures import ImageGeometry
from detcore_data.epoch_seeded import item_seed
from detcore_data.records import Records, clip_to_image


@dataclass(frozen=True)
class Seen:
    """One image and its objects after the transforms.

    Args:
        image: Its position in the split.
        size: (h, w) in pixels.
        geometry: How it came from its file.
        boxes: xyxy in its pixels.
        labels: 0..K-1.
        ignore: Which are regions to ignore.
        rows: Which annotation each one is: its position in the records.
    """

    image: int
    size: tuple[int, int]
    geometry: ImageGeometry
    boxes: Float[Tensor, "n 4"]
    labels: Int[Tensor, "n"]
    ignore: Bool[Tensor, "n"]
    rows: Int[Tensor, "n"]


def seen_objects(
    records: Records,
    sizes: Int[Tensor, "I 2"],
    transforms: Sequence[Transform],
    images: Iterable[int],
    seed: int = 0,
) -> Iterator[Seen]:
    """Applies the transforms to images without pixels (on the meta device where the transforms allow it).

    Random transforms draw from (seed, 0, image), as in the first epoch of a training with that seed. Transforms
    that look at pixels see a black image.

    Args:
        records: The split.
        sizes: (h, w) of the images; those of unknown size (zeros) are passed over.
        transforms: The dataset's.
        images: Positions of the images.
        seed: Of the random transforms.
    """
    device = "meta"
    for image in images:
        height, width = sizes[image].tolist()
        if not height or not width:
            continue
        example = _example(records, image, (height, width))
        state = torch.get_rng_state()
        try:
            try:
                seen = _apply(example, transforms, device, item_seed(seed, 0, image))
            except (NotImplementedError, RuntimeError):
                if device == "cpu":
                    raise
                device = "cpu"  # a transform looks at pixels
                seen = _apply(example, transforms, device, item_seed(seed, 0, image))
        finally:
            torch.set_rng_state(state)
        yield _as_seen(records, image, seen)


def _example(records: Records, image: int, size: tuple[int, int]) -> Example:
    """The image's objects; their labels are their rows, so that they can be told apart afterwards."""
    record = records[image]
    rows = torch.arange(record.rows.start, record.rows.stop)
    annotations = records.annotations.select(record.rows)
    boxes, has_extent = clip_to_image(annotations.boxes, torch.tensor(size).expand(len(annotations), 2))
    kept = has_extent & annotations.boxes.isfinite().all(-1)
    return Example(
        image=tv_tensors.Image(torch.empty((3, *size), dtype=torch.uint8, device="meta")),
        boxes=tv_tensors.BoundingBoxes(boxes[kept], format="XYXY", canvas_size=size),
        labels=rows[kept],
        ignore=annotations.ignore[kept],
        image_id=record.image_id,
        file=record.file,
        geometry=ImageGeometry(size),
    )


def _apply(example: Example, transforms: Sequence[Transform], device: str, seed: int) -> Example:
    torch.manual_seed(seed)
    if device != "meta":
        image = tv_tensors.Image(torch.zeros(example["image"].shape, dtype=torch.uint8))
        example = Example(**{**example, "image": image})
    for transform in transforms:
        example = transform(example)
    return example


def _as_seen(records: Records, image: int, example: Example) -> Seen:
    rows = example["labels"]
    height, width = example["image"].shape[-2:]
    return Seen(
        image=image,
        size=(int(height), int(width)),
        geometry=example["geometry"],
        boxes=example["boxes"].as_subclass(Tensor),
        labels=records.annotations.labels[rows],
        ignore=example["ignore"],
        rows=rows,
    )
