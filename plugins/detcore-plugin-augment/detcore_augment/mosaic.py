"""Four pictures in one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from detcore_data import MixTransform
from detcore_data.functional import resize
from torch import Tensor

from detcore.interfaces import Example
from detcore.structures import ImageGeometry
from detcore_augment.draws import Color, Edge, Probability, check_range, happens, integer, rgb, uniform
from detcore_augment.objects import Leftover, MinRatio, MinSize, masks_of, moved, together, trimmed
from detcore_augment.pictures import canvas, paste

#: Where the four pictures touch the centre: whether they lie left of it, and above.
_CORNERS = ((True, True), (False, True), (True, False), (False, False))


class Mosaic(MixTransform):
    """Puts four pictures together around a centre, on a canvas of twice the size.

    From YOLOv4 (Bochkovskiy et al., arXiv 2004.10934), as in YOLOX (Ge et al., arXiv 2107.08430). Each picture is
    scaled to fit into ``img_scale``; what reaches over the canvas is cut off, what none covers is filled. The
    example itself is at the upper left. Usually followed by a :class:`RandomAffine` that cuts ``img_scale`` out of
    it (``border``). A mosaic comes from several files: its ``geometry`` is that of a picture of its own.

    Args:
        img_scale: (w, h) that each picture is scaled to fit into, in pixels; the canvas is twice as wide and high.
        center_ratio_range: Lowest and highest place of the centre, as a fraction of ``img_scale``, drawn for x
            and y apart.
        pad_val: Colour of what no picture covers, one value or red, green, blue, on the scale 0..255.
        prob: Probability that there is a mosaic; else the example stays as it is, in its own size.
        min_bbox_size: Objects with a side below this are left out, in pixels. The reference keeps all (0).
        min_area_ratio: Objects of which less than this fraction of the box is on the canvas are left over. The
            reference keeps all (0).
        leftover: What becomes of them: regions to ignore, or nothing.
        antialias: Whether pictures that become smaller are averaged over the pixels left out. The reference does
            not.
    """

    def __init__(
        self,
        *,
        img_scale: tuple[Edge, Edge] = (640, 640),
        center_ratio_range: tuple[float, float] = (0.5, 1.5),
        pad_val: Color = 114,
        prob: Probability = 1.0,
        min_bbox_size: MinSize = 1.0,
        min_area_ratio: MinRatio = 0.1,
        leftover: Leftover = "ignore",
        antialias: bool = True,
    ) -> None:
        check_range("center_ratio_range", center_ratio_range, 0, 2)
        self.img_scale, self.center_ratio_range, self.prob = img_scale, center_ratio_range, prob
        self.pad_val, self.antialias = rgb(pad_val), antialias
        self.min_bbox_size, self.min_area_ratio, self.leftover = min_bbox_size, min_area_ratio, leftover

    def others(self, length: int) -> tuple[int, ...]:
        """See :class:`~detcore_data.MixTransform`."""
        return tuple(integer(0, length - 1) for _ in range(3)) if happens(self.prob) else ()

    def mix(self, example: Example, others: Sequence[Example]) -> Example:
        """See :class:`~detcore_data.MixTransform`."""
        width, height = self.img_scale
        x = int(uniform(*self.center_ratio_range) * width)
        y = int(uniform(*self.center_ratio_range) * height)
        size = (2 * height, 2 * width)
        image = canvas(size, self.pad_val, example["image"].device)
        pieces = []
        for piece, (left, above) in zip((example, *others), _CORNERS, strict=True):
            fitted = self._fitted(piece)
            h, w = fitted["image"].shape[-2:]
            pieces.append(_placed(fitted, image, x - w if left else x, y - h if above else y))
        every = [masks_of(piece) for piece in pieces]
        known = [masks for masks in every if masks is not None]
        masks = torch.cat(known) if len(known) == len(every) else None
        mosaic = together(example, pieces, image, masks, ImageGeometry(size))
        return trimmed(
            mosaic,
            min_bbox_size=self.min_bbox_size,
            min_area_ratio=self.min_area_ratio,
            leftover=self.leftover,
        )

    def _fitted(self, piece: Example) -> Example:
        h, w = piece["image"].shape[-2:]
        factor = min(self.img_scale[0] / w, self.img_scale[1] / h)
        size = (max(1, int(h * factor)), max(1, int(w * factor)))
        return resize(piece, size, antialias=self.antialias, clip=False)


def _placed(piece: Example, image: Tensor, x: int, y: int) -> Example:
    """Pastes the picture onto the canvas, and gives the piece in the canvas's coordinates."""
    paste(image, piece["image"].as_subclass(Tensor), x, y)
    masks = masks_of(piece)
    if masks is not None:
        onto = masks.new_zeros((len(masks), *image.shape[-2:]))
        paste(onto, masks, x, y)
        masks = onto
    boxes = piece["boxes"].as_subclass(Tensor) + torch.tensor([x, y, x, y])
    return moved(piece, image=image, boxes=boxes, masks=masks, geometry=piece["geometry"])
