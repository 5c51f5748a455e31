"""The data that flows between components: frozen dataclasses of tensors with fixed shapes.

Shape letters, used everywhere: B images, M padded ground truths (the batch's maximum, at least 1), N priors,
C logit channels, K classes, D code size, P pairs, Q kept detections.

Boxes are xyxy in absolute pixels of the padded batch image, without +1. Labels are 0..K-1. Sizes are (h, w);
points, scales and strides are (x, y). What is padding is said by a boolean tensor, never by a special value.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import torch
from jaxtyping import Bool, Float, Int, Int8
from torch import Tensor
from torch.nn import functional as F
from torch.utils import _pytree

from detcore.errors import DataError, did_you_mean
from detcore.masks import Masks
from detcore.resampling import paste, paste_whole_pixels


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
        DataError: No class, a name that is no text, an id that is no integer, or one that occurs twice.
    """

    names: tuple[str, ...]
    ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if isinstance(self.names, str):
            raise DataError(
                f"class names should be a list, got the text {self.names!r}; write [{self.names!r}]"
            )
        object.__setattr__(self, "names", tuple(self.names))
        object.__setattr__(self, "ids", tuple(self.ids) or tuple(range(len(self.names))))
        if not self.names:
            raise DataError("a class map needs at least one class")
        if len(self.ids) != len(self.names):
            raise DataError(
                f"a class map needs one id per name, got {len(self.names)} names and {len(self.ids)} ids"
            )
        _check_distinct("name", self.names, str)
        _check_distinct("id", self.ids, int)

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
            hint = f"; {near}" if near else ""
            raise DataError(f"unknown class {name!r}{hint}; the classes are: {', '.join(self.names)}")
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
        """The inverse of :meth:`to_dict`.

        Raises:
            DataError: A key is unknown or missing, or the content is no class map.
        """
        known = ("names", "ids")
        for name in data:
            if name not in known:
                raise DataError(f"class map: unknown key {name!r}; it holds names and ids")
        for name in known:
            if name not in data:
                raise DataError(f"class map: the key {name!r} is missing")
        return cls(data["names"], tuple(data["ids"]))


def _check_distinct(what: str, values: tuple[Any, ...], kind: type) -> None:
    seen = set()
    for value in values:
        if not isinstance(value, kind) or isinstance(value, bool):
            raise DataError(f"class {what} {value!r} should be of type {kind.__name__}")
        if value in seen:
            raise DataError(f"class {what} {value!r} occurs twice: {list(values)}")
        seen.add(value)


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
    def count(self) -> int:  # type: ignore[override]
        """Priors in this level."""
        return self.h * self.w * self.per_cell


@dataclass(frozen=True)
class _Structure:
    """Base of the structures that move between devices as a whole."""

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        """A copy whose tensors are on ``device``, those of nested structures included."""

        def moved(value: Any) -> Any:
            if isinstance(value, (Tensor, _Structure, Masks)):
                return value.to(device, non_blocking=non_blocking)
            if type(value) is tuple:
                return tuple(moved(item) for item in value)
            return value

        return dataclasses.replace(
            self, **{f.name: moved(getattr(self, f.name)) for f in dataclasses.fields(self)}
        )

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)


@dataclass(frozen=True)
class ImageGeometry:
    """How one image came from its file: scaled, then cut at an origin, then flipped.

    A picture that was turned, or put together from several, comes from no file in this way. It counts as its own
    original: its geometry begins anew with its own size, and boxes lead back to the picture itself. Only training
    examples are of that kind.

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

        Raises:
            DataError: One of the lists has not one entry per image.
        """
        count, _, height, width = pixels.shape
        for name, rows in (("sizes", sizes), ("padded_sizes", padded_sizes), ("geometry", geometry)):
            if rows is not None and len(rows) != count:
                raise DataError(f"{name}: expected one entry per image, got {len(rows)} for {count} images")
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

    def padded(self, to: int | None = None) -> Self:
        """The same ground truth with more rows of padding, so that few different M occur.

        A compiled step is compiled once for each M that it meets. With M rounded up to powers of two there are ten
        of them up to 1000 objects.

        Args:
            to: Rows that there are to be; the next power of two where None.

        Raises:
            ValueError: There are more rows already.
        """
        rows = int(self.boxes.shape[1])
        to = 1 << max(rows - 1, 0).bit_length() if to is None else to
        if to < rows:
            raise ValueError(f"targets have {rows} rows, which do not fit into to={to}")
        more = to - rows
        return self.replace(
            boxes=F.pad(self.boxes, (0, 0, 0, more)),
            labels=F.pad(self.labels, (0, more)),
            valid=F.pad(self.valid, (0, more)),
            ignore=F.pad(self.ignore, (0, more)),
            masks=None if self.masks is None else self.masks.padded(more),
        )

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
        device = torch.as_tensor(images[0]["boxes"]).device if images else None
        boxes = torch.zeros((len(images), rows, 4), device=device)
        labels = boxes.new_zeros((len(images), rows), dtype=torch.int64)
        valid = boxes.new_zeros((len(images), rows), dtype=torch.bool)
        ignore = torch.zeros_like(valid)
        for i, (image, count) in enumerate(zip(images, counts, strict=True)):
            boxes[i, :count] = torch.as_tensor(image["boxes"]).reshape(-1, 4)
            labels[i, :count] = torch.as_tensor(image["labels"])
            valid[i, :count] = True
            if image.get("ignore") is not None:
                ignore[i, :count] = torch.as_tensor(image["ignore"], dtype=torch.bool)
        return cls(boxes, labels, valid, ignore, _stack_masks(images, counts, rows))


def _stack_masks(images: Sequence[Mapping[str, Any]], counts: Sequence[int], rows: int) -> Masks | None:
    """The masks of all images, or None where no image has any; an image without objects needs none."""
    if all(image.get("masks") is None for image in images):
        return None
    for i, (image, count) in enumerate(zip(images, counts, strict=True)):
        if count and image.get("masks") is None:
            raise DataError(f"targets[{i}]: {count} boxes without masks, while other images have them")
    none = torch.zeros((0, 0, 0), dtype=torch.bool, device=torch.as_tensor(images[0]["boxes"]).device)
    return Masks.stack(
        [torch.as_tensor(none if (m := image.get("masks")) is None else m) for image in images], rows
    )


def _check_rows(index: int, image: Mapping[str, Any]) -> int:
    """The number of objects of one image, after checking that all its entries have so many rows."""
    known = ("boxes", "labels", "ignore", "masks")
    unknown = next((name for name in image if name not in known), None)
    if unknown is not None:
        near = did_you_mean(unknown, known)
        hint = f"{near} " if near else ""
        raise DataError(f"targets[{index}]: unknown key {unknown!r}; {hint}known: {', '.join(known)}")
    for name in ("boxes", "labels"):
        if image.get(name) is None:
            raise DataError(f"targets[{index}]: the key {name!r} is missing")
    count = len(image["boxes"])
    shape = list(torch.as_tensor(image["boxes"]).shape)
    if shape != [count, 4] and count:
        raise DataError(f"targets[{index}]: boxes should have shape [n, 4], got {shape}")
    for name in ("labels", "ignore", "masks"):
        if image.get(name) is not None and len(image[name]) != count:
            raise DataError(f"targets[{index}]: {count} boxes but {len(image[name])} {name}")
    for name in ("labels", "ignore"):
        shape = list(torch.as_tensor(image.get(name, ())).shape)
        if image.get(name) is not None and shape != [count]:
            raise DataError(f"targets[{index}]: {name} should have shape [n], got {shape}")
    labels = torch.as_tensor(image["labels"])
    if count and (labels.is_floating_point() or labels.dtype == torch.bool):
        raise DataError(f"targets[{index}]: labels should be integers, got {labels.dtype}")
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
            index: Prior indices: [B, T] picks T per image, any other shape picks from shared priors.
            image: Image of each index, where the priors are per image and the indices are not [B, T].

        Raises:
            ValueError: The priors are per image, and which image is meant is not told.
        """
        strides = self.strides[index]
        if self.boxes.dim() == 2:
            boxes = self.boxes[index]
        elif image is not None:
            boxes = self.boxes[image, index]
        elif index.dim() == 2 and len(index) == len(self.boxes):
            boxes = self.boxes.gather(1, index[..., None].expand(-1, -1, 4))
        else:
            shape, count = list(index.shape), len(self.boxes)
            raise ValueError(
                f"index should be [{count}, T] for priors of {count} images, got {shape}; or give image"
            )
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
        masks: Mask logits, maps that cover the whole image, or at the places ``mask_points``; or None.
        scores: Class probabilities, where they are not simply the sigmoid of the logits (a head that also
            tells objectness gives the product); or None.
        mask_points: (x, y) in pixels of the places at which ``masks`` [B, N, S] were taken; or None.
    """

    logits: Float[Tensor, "B N C"]
    boxes: Float[Tensor, "B N 4"]
    masks: Float[Tensor, "B N *S"] | None = None
    scores: Float[Tensor, "B N C"] | None = None
    mask_points: Float[Tensor, "B S 2"] | None = None


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
        image_sizes: (h, w) of the images that the boxes refer to; needed to paste masks, else optional.
    """

    boxes: Float[Tensor, "B Q 4"]
    scores: Float[Tensor, "B Q"]
    labels: Int[Tensor, "B Q"]
    valid: Bool[Tensor, "B Q"]
    masks: Float[Tensor, "B Q h w"] | None = None
    image_sizes: Int[Tensor, "B 2"] | None = None

    def __len__(self) -> int:
        """The number of images B."""
        return int(self.boxes.shape[0])

    def to_original(self, batch: ImageBatch) -> Self:
        """The same detections in the pixels of the image files: unflipped, uncut, unscaled, clipped."""
        # Tables of (x, y) per image, to broadcast against the corners [B, Q, 2 corners, 2 axes].
        size, origin, scale, flip, limit = (
            table[:, None, None]
            for table in (
                batch.sizes.flip(-1),
                batch.origin,
                batch.scale,
                batch.flip,
                batch.original_sizes.flip(-1),
            )
        )
        corners = self.boxes.reshape(*self.boxes.shape[:-1], 2, 2)
        corners = torch.where(flip, (size - corners).flip(-2), corners)
        corners = (corners + origin) / scale
        corners = corners.clamp(min=0).minimum(limit.to(corners.dtype))
        boxes = torch.where(self.valid[..., None], corners.flatten(-2), 0)
        return self.replace(boxes=boxes, masks=self._unflipped_masks(batch), image_sizes=batch.original_sizes)

    def _unflipped_masks(self, batch: ImageBatch) -> Tensor | None:
        if self.masks is None:
            return None
        flip_x, flip_y = (batch.flip[:, axis, None, None, None] for axis in (0, 1))
        masks = torch.where(flip_x, self.masks.flip(-1), self.masks)
        return torch.where(flip_y, masks.flip(-2), masks)

    def unpad(self, *, whole_pixels: bool = False) -> list[ImageDetections]:
        """One :class:`ImageDetections` per image, masks pasted into it. Synchronises with the device.

        Args:
            whole_pixels: Whether boxes are brought to whole pixels before masks are pasted into them, as
                torchvision does, rather than masks placed exactly.

        Raises:
            ValueError: There are masks, but ``image_sizes`` is not set.
        """
        if self.masks is not None and self.image_sizes is None:
            raise ValueError(
                "masks are pasted into images: set image_sizes, or call to_original(batch) first"
            )
        found = []
        for i, kept in enumerate(self.valid):
            masks = None
            if self.masks is not None and self.image_sizes is not None:
                put = paste_whole_pixels if whole_pixels else paste
                masks = put(self.masks[i][kept], self.boxes[i][kept], self.image_sizes[i].tolist())
            found.append(
                ImageDetections(self.boxes[i][kept], self.scores[i][kept], self.labels[i][kept], masks)
            )
        return found


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
        """The sum of the terms; 0 where there is none.

        Raises:
            ValueError: A term is not a scalar.
        """
        for name, term in self.items():
            if term.numel() != 1:
                raise ValueError(f"loss {name!r} should be a scalar, got shape {list(term.shape)}")
        return torch.stack([term.reshape(()) for term in self.values()]).sum() if self else torch.zeros(())


def _flatten_losses(losses: Losses) -> tuple[list[Tensor], Any]:
    return [*losses.values(), *losses.metrics.values()], (tuple(losses), tuple(losses.metrics))


def _unflatten_losses(tensors: Iterable[Any], names: Any) -> Losses:
    terms, metrics = names
    values = list(tensors)
    return Losses(
        dict(zip(terms, values[: len(terms)], strict=True)),
        dict(zip(metrics, values[len(terms) :], strict=True)),
    )


# What walks through outputs (DDP with a static graph, torch.func, torch.export) must find the tensors.
_pytree.register_pytree_node(
    Losses, _flatten_losses, _unflatten_losses, serialized_type_name="detcore.structures.Losses"
)
for _structure in (
    Masks, ImageBatch, Targets, Priors, ApproxPriors, HeadOutput, DenseOutput, Predictions, Pairs, Assignment,
    Sample, Proposals, ImageDetections, Detections,
):  # fmt: skip
    torch.export.register_dataclass(_structure)
