"""Pictures of detections and of ground truth."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional as F
from torchvision.utils import draw_bounding_boxes, draw_segmentation_masks, make_grid

Color = tuple[int, int, int]

_GOLDEN_RATIO = 0.6180339887498949
_MASK_OPACITY = 0.45
_WHITE, _BLACK = (255, 255, 255), (0, 0, 0)


def color_of(label: int) -> Color:
    """A colour for a class, the same in every picture; neighbours differ, whatever the number of classes."""
    hue = (0.02 + label * _GOLDEN_RATIO) % 1.0
    saturation, value = ((0.85, 1.0), (0.6, 1.0), (1.0, 0.75))[label % 3]
    red, green, blue = (round(255 * channel) for channel in colorsys.hsv_to_rgb(hue, saturation, value))
    return red, green, blue


@dataclass(frozen=True)
class Drawn:
    """Boxes and masks to be drawn into one image.

    Args:
        boxes: xyxy in pixels of the image.
        labels: 0..K-1.
        scores: 0..1; None for ground truth.
        masks: In the image, or None.
    """

    boxes: Float[Tensor, "n 4"]
    labels: Int[Tensor, "n"]
    scores: Float[Tensor, "n"] | None = None
    masks: Bool[Tensor, "n H W"] | None = None

    def scaled(self, factor: float, size: tuple[int, int]) -> Drawn:
        """The boxes and masks in an image that is ``factor`` times as large, of ``size`` (h, w)."""
        masks = self.masks
        if masks is not None and len(masks):
            masks = F.interpolate(masks[:, None].float(), size)[:, 0].bool()
        return Drawn(self.boxes * factor, self.labels, self.scores, masks)


def draw(image: UInt8[Tensor, "3 H W"], drawn: Drawn, names: Sequence[str]) -> UInt8[Tensor, "3 H W"]:
    """A copy of the image with masks, boxes, class names and scores.

    Args:
        image: RGB.
        drawn: The boxes; the best ones are drawn last, over the others.
        names: Class names by label.
    """
    if not len(drawn.boxes):
        return image.clone()
    order = torch.arange(len(drawn.boxes)).flip(0)
    if drawn.scores is not None:
        order = drawn.scores.argsort()
    labels = drawn.labels[order].tolist()
    colors = [color_of(label) for label in labels]
    picture = image
    masks: Sequence[Tensor] = () if drawn.masks is None else tuple(drawn.masks[order])
    for mask, color in zip(
        masks, colors, strict=False
    ):  # one by one: together, they are black where they meet
        picture = draw_segmentation_masks(picture, mask, alpha=_MASK_OPACITY, colors=color)
    scores = [None] * len(labels) if drawn.scores is None else drawn.scores[order].tolist()
    texts = [
        names[label] if score is None else f"{names[label]} {score:.2f}"
        for label, score in zip(labels, scores, strict=True)
    ]
    return draw_boxes(picture, drawn.boxes[order], texts, colors)


def draw_boxes(
    image: UInt8[Tensor, "3 H W"],
    boxes: Float[Tensor, "n 4"],
    texts: Sequence[str],
    colors: Sequence[Color],
) -> UInt8[Tensor, "3 H W"]:
    """A copy of the image with boxes, each under its text.

    Args:
        image: RGB.
        boxes: xyxy in its pixels; later ones are drawn over earlier ones.
        texts: Per box; nothing is written where it is empty.
        colors: Per box.
    """
    if not len(boxes):
        return image.clone()
    short = min(image.shape[-2:])
    width, size = max(2, round(short / 300)), max(12, round(short / 32))
    inside = _inside(boxes, image.shape[-2], image.shape[-1])
    picture = draw_bounding_boxes(image, inside, colors=list(colors), width=width)
    return _write(picture, inside.tolist(), texts, colors, size)


def side_by_side(
    rows: Sequence[tuple[UInt8[Tensor, "3 H W"], Drawn, Drawn]], names: Sequence[str], *, edge: int = 320
) -> UInt8[Tensor, "3 H W"]:
    """A grid of pairs: ground truth at the left, detections at the right.

    Args:
        rows: Per pair the image, its ground truth and its detections.
        names: Class names by label.
        edge: Length of each picture's long edge, in pixels.
    """
    cells = []
    for image, truth, found in rows:
        factor = edge / max(image.shape[-2:])
        large = resized(image, factor)
        for drawn, title in ((truth, "ground truth"), (found, "detected")):
            size = (int(large.shape[-2]), int(large.shape[-1]))
            cell = _framed(draw(large, drawn.scaled(factor, size), names), edge, title)
            cells.append(cell)
    grid: Tensor = make_grid(cells, nrow=4 if len(rows) > 3 else 2, padding=6, pad_value=255)
    return grid


def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own font, so that no system font is needed.

    Args:
        size: Height in pixels.
    """
    return ImageFont.load_default(size)


def _inside(boxes: Tensor, height: int, width: int) -> Tensor:
    """Boxes that drawing accepts: inside the image, and with an extent."""
    low = torch.minimum(boxes[:, :2].clamp(min=0), boxes.new_tensor([width - 2, height - 2]))
    high = torch.maximum(torch.minimum(boxes[:, 2:], boxes.new_tensor([width - 1, height - 1])), low + 1)
    return torch.cat((low, high), dim=1)


def _write(
    picture: Tensor,
    boxes: Sequence[Sequence[float]],
    texts: Sequence[str],
    colors: Sequence[Color],
    size: int,
) -> Tensor:
    """Texts on grounds of their boxes' colours, above the boxes where there is room."""
    image = Image.fromarray(picture.permute(1, 2, 0).numpy())
    pen, letters = ImageDraw.Draw(image), font(size)
    for (x1, y1, _, _), text, color in zip(boxes, texts, colors, strict=True):
        if not text:
            continue
        left, top, right, bottom = pen.textbbox((0, 0), text, font=letters)
        w, h = right - left + 6, bottom - top + 6
        x = max(0.0, min(x1, image.width - w))
        y = y1 - h if y1 >= h else min(y1, image.height - h)
        pen.rectangle((x, y, x + w, y + h), fill=color)
        pen.text((x + 3 - left, y + 3 - top), text, fill=_readable_on(color), font=letters)
    return _tensor(image)


def _readable_on(color: Color) -> Color:
    red, green, blue = color
    return _BLACK if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else _WHITE


def resized(picture: UInt8[Tensor, "3 H W"], factor: float) -> UInt8[Tensor, "3 h w"]:
    """The picture ``factor`` times as large.

    Args:
        picture: RGB.
        factor: Above 0.
    """
    image = Image.fromarray(picture.permute(1, 2, 0).numpy())
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    return _tensor(image.resize(size, Image.Resampling.BICUBIC))


def _framed(picture: Tensor, edge: int, title: str) -> Tensor:
    """The picture on a white square, under its title."""
    canvas = Image.new("RGB", (edge, edge + 22), _WHITE)
    canvas.paste(Image.fromarray(picture.permute(1, 2, 0).numpy()), (0, 22))
    ImageDraw.Draw(canvas).text((2, 2), title, fill=_BLACK, font=font(15))
    return _tensor(canvas)


def _tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()
