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
from detcore_data.functional import select
from detcore_data.mixing import MixTransform, apply_transforms
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
    with_masks = any(isinstance(transform, MixTransform) for transform in transforms)
    for image in images:
        if not sizes[image].all():
            continue
        state = torch.get_rng_state()
        try:
            try:
                seen = _apply(records, sizes, image, transforms, device, seed, with_masks)
            except (NotImplementedError, RuntimeError):
                if device == "cpu":
                    raise
                device = "cpu"  # a transform looks at pixels
                seen = _apply(records, sizes, image, transforms, device, seed, with_masks)
        finally:
            torch.set_rng_state(state)
        yield _as_seen(records, image, seen)


def _apply(
    records: Records,
    sizes: Tensor,
    image: int,
    transforms: Sequence[Transform],
    device: str,
    seed: int,
    with_masks: bool,
) -> Example:
    torch.manual_seed(item_seed(seed, 0, image))

    def read(index: int) -> Example:
        known = bool(sizes[index].all())
        one = index if known else image  # one that is mixed in, and whose size is not known, counts as empty
        height, width = sizes[one].tolist()
        example = _example(records, one, (height, width), device, with_masks)
        return example if known else select(example, torch.zeros(0, dtype=torch.int64))

    return apply_transforms(read, image, len(records), transforms)


def _example(records: Records, image: int, size: tuple[int, int], device: str, with_masks: bool) -> Example:
    """The image's objects; their labels are their rows, so that they can be told apart afterwards."""
    record = records[image]
    rows = torch.arange(record.rows.start, record.rows.stop)
    annotations = records.annotations.select(record.rows)
    boxes, has_extent = clip_to_image(annotations.boxes, torch.tensor(size).expand(len(annotations), 2))
    example = Example(
        image=tv_tensors.Image(torch.zeros((3, *size), dtype=torch.uint8, device=device)),
        boxes=tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=size),
        labels=rows,
        ignore=annotations.ignore,
        image_id=record.image_id,
        file=record.file,
        geometry=ImageGeometry(size),
    )
    if with_masks and records.segmentations is not None:
        masks = records.segmentations.decode(annotations.segments.tolist(), size, record.file)
        example["masks"] = tv_tensors.Mask(masks)
    return select(example, has_extent & annotations.boxes.isfinite().all(-1))


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
