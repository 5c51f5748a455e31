"""The data that flows between components: frozen dataclasses of tensors with fixed shapes.

Shape letters, used everywhere: B images, M padded ground truths (the batch's maximum, at least 1), N priors,
C logit channels, K classes, D code size, P pairs, Q kept detections.

Boxes are xyxy in absolute pixels of the padded batch image, without +1. Labels are 0..K-1. Sizes are (h, w);
points, scales and strides are (x, y). What is padding is said by a boolean tensor, never by a special value.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import torch
from jaxtyping import Bool, Float, Int, Int8
from torch import Tensor

from detcore.errors import DataError, did_you_mean
from detcore.masks import Masks


@dataclass(frozen=True)
class FeatureSpec:
    """One level of a feature pyramid; a tuple of them describes the pyramid.

    Args:
        channels: Number of channels.
        stride: Pixels of the input image per cell, the same in x and y.
    """

    channels: int
    stride: int

    def __post_init__(self) -> None:
        for name in ("channels", "stride"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"FeatureSpec.{name} should be a positive integer, got {value!r}")


@dataclass(frozen=True)
class ClassMap:
    """Names and dataset ids of the classes, by label; the only owner of the number of classes.

    Args:
        names: Class names; label k is ``names[k]``.
        ids: The ids that the dataset's files use; 0..K-1 where they have none.

    Raises:
        DataError: No class, or a name or an id that occurs twice.
    """

    names: tuple[str, ...]
    ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", tuple(self.names))
        object.__setattr__(self, "ids", tuple(self.ids) or tuple(range(len(self.names))))
        if not self.names:
            raise DataError("a class map needs at least one class")
        if len(self.ids) != len(self.names):
            raise DataError(f"a class map needs one id per name, got {len(self.names)} names and {len(self.ids)} ids")
        for what, values in (("name", self.names), ("id", self.ids)):
            twice = next((value for value in values if values.count(value) > 1), None)  # type: ignore[arg-type]
            if twice is not None:
                raise DataError(f"class {what} {twice!r} occurs twice: {list(values)}")

    def __len__(self) -> int:
        """The number of classes K."""
        return len(self.names)

    def label_of(self, name: str) -> int:
        """The label of a class name.

        Raises:
            DataError: No class has that name; the message tells the nearest one.
        """
        if name not in self.names:
            near = did_you_mean(name, self.names)
            raise DataError(f"unknown class {name!r}; {near} classes: {', '.join(self.names)}".replace("; classes", ". classes"))
        return self.names.index(name)

    def label_of_id(self, dataset_id: int) -> int:
        """The label of a dataset's id.

        Raises:
            DataError: No class has that id.
        """
        if dataset_id not in self.ids:
            raise DataError(f"unknown class id {dataset_id!r}; the class map has ids {list(self.ids)}")
        return self.ids.index(dataset_id)

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, for files."""
        return {"names": list(self.names), "ids": list(self.ids)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of :meth:`to_dict`."""
        return cls(tuple(data["names"]), tuple(data["ids"]))


class LevelShape(NamedTuple):
    """Height and width of one level's feature map, in cells."""

    h: int
    w: int


class PriorLevel(NamedTuple):
    """One level of a grid of priors: row-major over y then x, the priors of a cell together.

    Args:
        h: Rows.
        w: Columns.
        per_cell: Priors in each cell.
        stride: Distance of neighbouring cells (x, y), in pixels.
    """

    h: int
    w: int
    per_cell: int
    stride: tuple[float, float]

    @property
    def count(self) -> int:
        """Priors in this level."""
        return self.h * self.w * self.per_cell


@dataclass(frozen=True)
class _Structure:
    """Base of the structures that move between devices as a whole."""

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        """A copy whose tensors are on ``device``."""
        changes = {
            f.name: value.to(device, non_blocking=non_blocking)
            for f in dataclasses.fields(self)
            if isinstance(value := getattr(self, f.name), (Tensor, _Structure, Masks))
        }
        return dataclasses.replace(self, **changes)

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)


@dataclass(frozen=True)
class ImageGeometry:
    """How one image came from its file: scaled, then cut at an origin, then flipped.

    Args:
        original_size: (h, w) in the file, in pixels.
        scale: (x, y) factors from the file's pixels to the image's.
        origin: (x, y) of the image's corner in the scaled picture, in pixels.
        flip: Whether it was mirrored in (x, y), after the cut.
    """

    original_size: tuple[int, int]
    scale: tuple[float, float] = (1.0, 1.0)
    origin: tuple[float, float] = (0.0, 0.0)
    flip: tuple[bool, bool] = (False, False)


@dataclass(frozen=True)
class ImageBatch(_Structure):
    """Images as a detector sees them.

    Args:
        pixels: Normalised, padded at the right and bottom.
        sizes: True (h, w) inside the padding; detections are clipped to it.
        padded_sizes: Each image's own (h, w) rounded up to the divisor; anchors are valid inside.
        original_sizes: (h, w) of the file.
        scale: (x, y) factors from the file to the image.
        origin: (x, y) of the image's corner in the scaled file.
        flip: Whether mirrored in (x, y).
    """

    pixels: Float[Tensor, "B 3 H W"]
    sizes: Int[Tensor, "B 2"]
    padded_sizes: Int[Tensor, "B 2"]
    original_sizes: Int[Tensor, "B 2"]
    scale: Float[Tensor, "B 2"]
    origin: Float[Tensor, "B 2"]
    flip: Bool[Tensor, "B 2"]

    def __len__(self) -> int:
        """The number of images B."""
        return int(self.pixels.shape[0])

    @classmethod
    def of(
        cls,
        pixels: Float[Tensor, "B 3 H W"],
        sizes: Sequence[tuple[int, int]] | None = None,
        padded_sizes: Sequence[tuple[int, int]] | None = None,
        geometry: Sequence[ImageGeometry] | None = None,
    ) -> Self:
        """A batch from normalised, padded pixels.

        Args:
            pixels: The images.
            sizes: True (h, w) per image; the whole tensor where omitted.
            padded_sizes: (h, w) per image within which anchors are valid; the whole tensor where omitted.
            geometry: The way back to the files; identity where omitted.
        """
        count, _, height, width = pixels.shape
        whole = [(height, width)] * count
        sizes = whole if sizes is None else sizes
        geometry = [ImageGeometry((h, w)) for h, w in sizes] if geometry is None else geometry

        def table(rows: Sequence[tuple[Any, Any]], dtype: torch.dtype) -> Tensor:
            return torch.tensor(rows, dtype=dtype, device=pixels.device).reshape(count, 2)

        return cls(
            pixels=pixels,
            sizes=table(sizes, torch.int64),
            padded_sizes=table(whole if padded_sizes is None else padded_sizes, torch.int64),
            original_sizes=table([g.original_size for g in geometry], torch.int64),
            scale=table([g.scale for g in geometry], torch.float32),
            origin=table([g.origin for g in geometry], torch.float32),
            flip=table([g.flip for g in geometry], torch.bool),
        )


@dataclass(frozen=True)
class Targets(_Structure):
    """Ground truth of a batch, padded to M rows.

    Args:
        boxes: xyxy in pixels; padded rows hold zeros.
        labels: 0..K-1; padded rows hold 0.
        valid: Which rows are ground truths rather than padding.
        ignore: Which valid rows are regions to ignore (crowd, DontCare): never a positive, never background.
        masks: Instance masks, or None.
        semantic: Class per pixel, or None.
    """

    boxes: Float[Tensor, "B M 4"]
    labels: Int[Tensor, "B M"]
    valid: Bool[Tensor, "B M"]
    ignore: Bool[Tensor, "B M"]
    masks: Masks | None = None
    semantic: Int[Tensor, "B h w"] | None = None

    def __len__(self) -> int:
        """The number of images B."""
        return int(self.boxes.shape[0])

    @property
    def matchable(self) -> Bool[Tensor, "B M"]:
        """The rows that a prior may be assigned to: valid and not to be ignored."""
        return self.valid & ~self.ignore

    @classmethod
    def stack(cls, images: Sequence[Mapping[str, Any]]) -> Self:
        """Pads per-image ground truth to a batch.

        Args:
            images: Per image ``boxes`` [n, 4], ``labels`` [n], and optionally ``ignore`` [n] and ``masks``
                (bool [n, h, w]). n may be 0.

        Raises:
            DataError: The rows of an image's entries disagree in number or shape.
        """
        counts = [_check_rows(i, image) for i, image in enumerate(images)]
        rows = max([1, *counts])
        first = images[0]["boxes"] if images else torch.zeros(0, 4)
        boxes = first.new_zeros((len(images), rows, 4), dtype=torch.float32)
        labels = boxes.new_zeros((len(images), rows), dtype=torch.int64)
        valid = boxes.new_zeros((len(images), rows), dtype=torch.bool)
        ignore = torch.zeros_like(valid)
        for i, (image, count) in enumerate(zip(images, counts, strict=True)):
            boxes[i, :count] = torch.as_tensor(image["boxes"]).reshape(-1, 4)
            labels[i, :count] = torch.as_tensor(image["labels"])
            valid[i, :count] = True
            if image.get("ignore") is not None:
                ignore[i, :count] = torch.as_tensor(image["ignore"], dtype=torch.bool)
        masks = None
        if images and all(image.get("masks") is not None for image in images):
            masks = Masks.stack([image["masks"] for image in images], rows)
        return cls(boxes, labels, valid, ignore, masks)


def _check_rows(index: int, image: Mapping[str, Any]) -> int:
    unknown = set(image) - {"boxes", "labels", "ignore", "masks"}
    if unknown:
        name = sorted(unknown)[0]
        raise DataError(f"targets[{index}]: unknown key {name!r}; known: boxes, labels, ignore, masks")
    for name in ("boxes", "labels"):
        if name not in image:
            raise DataError(f"targets[{index}]: the key {name!r} is missing")
    count = len(image["boxes"])
    shape = tuple(torch.as_tensor(image["boxes"]).shape)
    if shape != (count, 4) and count:
        raise DataError(f"targets[{index}]: boxes should have shape [n, 4], got {list(shape)}")
    for name in ("labels", "ignore", "masks"):
        if image.get(name) is not None and len(image[name]) != count:
            raise DataError(f"targets[{index}]: {count} boxes but {len(image[name])} {name}")
    return count


@dataclass(frozen=True)
class Priors(_Structure):
    """Reference boxes or points that predictions refer to.

    Args:
        boxes: xyxy, shared by the batch or per image; a point is a box without extent.
        strides: (x, y) distance of neighbours in the prior's level, in pixels.
        levels: The grids, in order; empty where no grid is known (proposals).
        valid: Which priors lie inside each image's padded size; None means all.
    """

    boxes: Float[Tensor, "*B N 4"]
    strides: Float[Tensor, "N 2"]
    levels: tuple[PriorLevel, ...] = ()
    valid: Bool[Tensor, "B N"] | None = None

    def __len__(self) -> int:
        """The number of priors N."""
        return int(self.boxes.shape[-2])

    @property
    def centers(self) -> Float[Tensor, "*B N 2"]:
        """Centre points (x, y)."""
        return (self.boxes[..., :2] + self.boxes[..., 2:]) / 2

    def per_image(self, count: int) -> Float[Tensor, "B N 4"]:
        """The boxes with a batch dimension (a view where they are shared)."""
        return self.boxes.expand(count, -1, -1) if self.boxes.dim() == 2 else self.boxes

    def gather(self, index: Int[Tensor, "*S"], image: Int[Tensor, "*S"] | None = None) -> Priors:
        """The priors at ``index``, as a structure without levels.

        Args:
            index: Prior indices; [B, T] picks T per image, any other shape picks from shared priors.
            image: Image of each index, where the priors are per image and the indices are not [B, T].
        """
        strides = self.strides[index]
        if self.boxes.dim() == 2:
            boxes = self.boxes[index]
        elif image is not None:
            boxes = self.boxes[image, index]
        else:
            boxes = self.boxes.gather(1, index[..., None].expand(-1, -1, 4))
        return Priors(boxes, strides)


@dataclass(frozen=True)
class ApproxPriors(Priors):
    """Priors with the A approximating boxes that stand for each of them.

    Args:
        approxs: The approximating boxes.
    """

    approxs: Float[Tensor, "N A 4"] = None  # type: ignore[assignment]


@dataclass(frozen=True)
class HeadOutput(_Structure):
    """What a head's network gives; heads define typed subclasses.

    Args:
        levels: Feature map sizes, in the order of the flattened predictions.
    """

    levels: tuple[LevelShape, ...]


@dataclass(frozen=True)
class DenseOutput(HeadOutput):
    """One class vector and one box code per prior.

    Args:
        logits: Classification logits, before any activation.
        codes: Box codes, in the coder's space.
        priors: Priors of this output, where the head itself makes them (guided, cascaded); else None.
    """

    logits: Float[Tensor, "B N C"]
    codes: Float[Tensor, "B N D"]
    priors: Priors | None = None


@dataclass(frozen=True)
class Predictions(_Structure):
    """What an assigner may look at of the predictions; never carries gradients.

    Args:
        logits: Classification logits.
        boxes: Decoded boxes, xyxy in pixels.
        masks: Mask logits, or None.
    """

    logits: Float[Tensor, "B N C"]
    boxes: Float[Tensor, "B N 4"]
    masks: Tensor | None = None


@dataclass(frozen=True)
class Pairs(_Structure):
    """Matches between priors and ground truths, many to many, padded to P.

    Args:
        prior: Prior of each pair.
        gt: Ground truth of each pair.
        valid: Which rows are pairs rather than padding.
    """

    prior: Int[Tensor, "B P"]
    gt: Int[Tensor, "B P"]
    valid: Bool[Tensor, "B P"]


POSITIVE, NEGATIVE, IGNORED = 1, 0, -1


@dataclass(frozen=True)
class Assignment(_Structure):
    """Which ground truth each prior answers for.

    Args:
        gt_index: Row of the ground truth, 0 where the prior is not positive.
        state: 1 positive, 0 negative, -1 ignored.
        quality: IoU or the method's own score with the best ground truth.
        pairs: The matches of a many-to-many method, or None.
        ignored_pairs: Pairs that take no part, or None.
    """

    gt_index: Int[Tensor, "B N"]
    state: Int8[Tensor, "B N"]
    quality: Float[Tensor, "B N"]
    pairs: Pairs | None = None
    ignored_pairs: Pairs | None = None

    @property
    def positive(self) -> Bool[Tensor, "B N"]:
        """Priors that answer for a ground truth."""
        return self.state == POSITIVE

    @property
    def negative(self) -> Bool[Tensor, "B N"]:
        """Priors that are background."""
        return self.state == NEGATIVE


@dataclass(frozen=True)
class Sample(_Structure):
    """The priors that a loss is taken over.

    Args:
        positive: Chosen positives.
        negative: Chosen negatives.
        weight: Weight per prior, or None for 1.
    """

    positive: Bool[Tensor, "B N"]
    negative: Bool[Tensor, "B N"]
    weight: Float[Tensor, "B N"] | None = None


@dataclass(frozen=True)
class Proposals(_Structure):
    """Regions for a second stage, padded to N.

    Args:
        boxes: xyxy in pixels.
        scores: Objectness.
        valid: Which rows are proposals rather than padding.
        queries: Feature per proposal, or None.
    """

    boxes: Float[Tensor, "B N 4"]
    scores: Float[Tensor, "B N"]
    valid: Bool[Tensor, "B N"]
    queries: Float[Tensor, "B N C"] | None = None


class Encoded(NamedTuple):
    """Box codes and, from coders that have them, a weight per value.

    Args:
        values: [..., D].
        weights: [..., D] or None.
    """

    values: Tensor
    weights: Tensor | None = None


@dataclass(frozen=True)
class ImageDetections(_Structure):
    """The detections of one image, without padding.

    Args:
        boxes: xyxy in pixels.
        scores: 0..1, descending.
        labels: 0..K-1.
        masks: Masks pasted into the image, or None.
    """

    boxes: Float[Tensor, "n 4"]
    scores: Float[Tensor, "n"]
    labels: Int[Tensor, "n"]
    masks: Bool[Tensor, "n h w"] | None = None

    def __len__(self) -> int:
        """The number of detections."""
        return int(self.boxes.shape[0])


@dataclass(frozen=True)
class Detections(_Structure):
    """What a detector found in a batch, padded to Q, the best score first.

    Args:
        boxes: xyxy in pixels.
        scores: 0..1; 0 in padded rows.
        labels: 0..K-1; 0 in padded rows.
        valid: Which rows are detections rather than padding.
        masks: Low-resolution mask probabilities per box, or None.
    """

    boxes: Float[Tensor, "B Q 4"]
    scores: Float[Tensor, "B Q"]
    labels: Int[Tensor, "B Q"]
    valid: Bool[Tensor, "B Q"]
    masks: Float[Tensor, "B Q h w"] | None = None

    def __len__(self) -> int:
        """The number of images B."""
        return int(self.boxes.shape[0])

    def to_original(self, batch: ImageBatch) -> Self:
        """The same detections in the pixels of the image files: unflipped, uncut, unscaled, clipped."""
        x, y = self.boxes[..., 0::2], self.boxes[..., 1::2]
        height, width = batch.sizes[:, 0, None, None], batch.sizes[:, 1, None, None]
        x = torch.where(batch.flip[:, 0, None, None], (width - x).flip(-1), x)
        y = torch.where(batch.flip[:, 1, None, None], (height - y).flip(-1), y)
        x = (x + batch.origin[:, 0, None, None]) / batch.scale[:, 0, None, None]
        y = (y + batch.origin[:, 1, None, None]) / batch.scale[:, 1, None, None]
        limits = batch.original_sizes.to(x.dtype)[:, :, None, None]
        x = torch.minimum(x.clamp(min=0), limits[:, 1])
        y = torch.minimum(y.clamp(min=0), limits[:, 0])
        return self.replace(boxes=torch.stack((x, y), dim=-1).flatten(-2))

    def unpad(self) -> list[ImageDetections]:
        """One :class:`ImageDetections` per image. Synchronises with the device."""
        return [
            ImageDetections(self.boxes[i][kept], self.scores[i][kept], self.labels[i][kept])
            for i, kept in enumerate(self.valid)
        ]


class Losses(dict[str, Tensor]):
    """Scalars to be summed for the backward pass; :attr:`metrics` holds what is only to be looked at.

    Args:
        losses: Loss terms by name.
        metrics: Scalars that are logged and never summed.
    """

    def __init__(self, losses: Mapping[str, Tensor], metrics: Mapping[str, Tensor] | None = None) -> None:
        super().__init__(losses)
        self.metrics: dict[str, Tensor] = dict(metrics or {})

    @property
    def total(self) -> Tensor:
        """The sum of the terms."""
        return torch.stack([term.reshape(()) for term in self.values()]).sum()


for _structure in (
    ImageBatch, Targets, Priors, ApproxPriors, DenseOutput, Predictions, Pairs, Assignment, Sample, Proposals,
    ImageDetections, Detections,
):  # fmt: skip
    torch.export.register_dataclass(_structure)
