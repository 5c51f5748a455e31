"""Two pictures over each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from detcore_data import MixTransform
from detcore_data.functional import flip, resize
from pydantic import Field
from torch import Tensor

from detcore.interfaces import Example
from detcore_augment.draws import Color, Edge, Probability, check_range, happens, integer, rgb, uniform
from detcore_augment.objects import Leftover, MinRatio, MinSize, masks_of, together, trimmed
from detcore_augment.pictures import window


class MixUp(MixTransform):
    """Lays a second picture over the example, each with half of its weight, and keeps the objects of both.

    As in YOLOX (Ge et al., arXiv 2107.08430), after mixup (Zhang et al., arXiv 1710.09412) and its use for
    detection (Zhang et al., arXiv 1902.04103). The second picture is scaled to fit into ``img_scale``, then by a
    random factor, may be mirrored, and is cut at a random place, or filled up, to the size of the example. One
    without objects is not mixed in. The example does not move: its way back to the file stays.

    Args:
        img_scale: (w, h) that the second picture is scaled to fit into, in pixels.
        ratio_range: Lowest and highest further factor.
        flip_ratio: Probability that the second picture is mirrored in x.
        pad_val: Colour of what the second picture does not cover, one value or red, green, blue, on the scale 0..255.
        weight: Weight of the example's pixels; the second picture has the rest.
        alpha: The weight is drawn from a beta distribution with both parameters equal to this instead (1.5 in
            arXiv 1902.04103); None for the fixed weight.
        prob: Probability that a picture is mixed in.
        others_mixed: Whether the second picture, too, comes through all transforms before this one (two mosaics,
            as in YOLOv5), rather than through those before the first one that mixes.
        min_bbox_size: Second objects with a side below this are left out, in pixels. The reference keeps all (0).
        min_area_ratio: Second objects of which less than this fraction of the box is in the picture are left over.
            The reference keeps all (0).
        leftover: What becomes of them: regions to ignore, or nothing.
        antialias: Whether a picture that becomes smaller is averaged over the pixels left out. The reference does
            not.
    """

    def __init__(
        self,
        *,
        img_scale: tuple[Edge, Edge] = (640, 640),
        ratio_range: tuple[float, float] = (0.5, 1.5),
        flip_ratio: Probability = 0.5,
        pad_val: Color = 114,
        weight: Probability = 0.5,
        alpha: Annotated[float, Field(gt=0)] | None = None,
        prob: Probability = 1.0,
        others_mixed: bool = False,
        min_bbox_size: MinSize = 1.0,
        min_area_ratio: MinRatio = 0.1,
        leftover: Leftover = "ignore",
        antialias: bool = True,
    ) -> None:
        check_range("ratio_range", ratio_range, 0.01)
        self.img_scale, self.ratio_range, self.flip_ratio = img_scale, ratio_range, flip_ratio
        self.pad_val, self.weight, self.alpha, self.prob = rgb(pad_val), weight, alpha, prob
        self.others_mixed, self.antialias = others_mixed, antialias
        self.min_bbox_size, self.min_area_ratio, self.leftover = min_bbox_size, min_area_ratio, leftover

    def others(self, length: int) -> tuple[int, ...]:
        """See :class:`~detcore_data.MixTransform`."""
        return (integer(0, length - 1),) if happens(self.prob) else ()

    def mix(self, example: Example, others: Sequence[Example]) -> Example:
        """See :class:`~detcore_data.MixTransform`."""
        (second,) = others
        if not len(second["boxes"]):
            return example
        fitted = self._fitted(second, tuple(example["image"].shape[-2:]))
        weight = self._weight()
        image = example["image"].float() * weight + fitted["image"].float() * (1 - weight)
        pair = (masks_of(example), masks_of(fitted))
        masks = torch.cat((pair[0], pair[1])) if pair[0] is not None and pair[1] is not None else None
        pixels = image.as_subclass(Tensor).round().to(torch.uint8)
        return together(example, (example, fitted), pixels, masks, example["geometry"])

    def _fitted(self, second: Example, size: tuple[int, ...]) -> Example:
        """The second example, scaled, perhaps mirrored, in a window of (h, w)."""
        h, w = second["image"].shape[-2:]
        factor = min(self.img_scale[0] / w, self.img_scale[1] / h) * uniform(*self.ratio_range)
        scaled = resize(
            second,
            (max(1, int(h * factor)), max(1, int(w * factor))),
            antialias=self.antialias,
        )
        scaled = flip(scaled, happens(self.flip_ratio), False)
        h, w = scaled["image"].shape[-2:]
        y, x = integer(0, max(0, h - size[0])), integer(0, max(0, w - size[1]))
        return trimmed(
            window(scaled, x, y, (size[0], size[1]), self.pad_val),
            min_bbox_size=self.min_bbox_size,
            min_area_ratio=self.min_area_ratio,
            leftover=self.leftover,
        )

    def _weight(self) -> float:
        if self.alpha is None:
            return self.weight
        alpha = torch.tensor(self.alpha, dtype=torch.float64)
        return float(torch.distributions.Beta(alpha, alpha).sample())
