"""An image twice: what there is, and what was detected, with every error in its colour and by its name."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from detcore_data import image_of
from jaxtyping import UInt8
from PIL import Image, ImageDraw
from torch import Tensor

from detcore.errors import DataError
from detcore.interfaces import Dataset
from detcore_eval.analysis import Analysis
from detcore_eval.drawing import Color, draw_boxes, font, resized
from detcore_eval.errors import GtState, State

_EDGE = 560
_WIDE = 1.7  # pictures so many times as wide as high stand one above the other
_GREEN, _GREY, _ORANGE, _RED = (30, 150, 60), (130, 130, 130), (240, 150, 0), (215, 35, 35)
_PURPLE, _BLUE, _PINK = (140, 60, 200), (40, 110, 220), (225, 60, 160)

#: Colours of detections.
STATE_COLORS: dict[State, Color] = {
    State.TRUE: _GREEN,
    State.CLASSIFICATION: _PURPLE,
    State.LOCALISATION: _ORANGE,
    State.BOTH: _PINK,
    State.DUPLICATE: _BLUE,
    State.BACKGROUND: _RED,
    State.EXCUSED: _GREY,
    State.UNCOUNTED: _GREY,
}
#: Colours of objects.
GT_COLORS: dict[GtState, Color] = {
    GtState.FOUND: _GREEN,
    GtState.NEARLY: _ORANGE,
    GtState.MISSED: _RED,
    GtState.IGNORED: _GREY,
}


def both_sides(dataset: Dataset, analysis: Analysis, position: int) -> UInt8[Tensor, "3 h w"] | None:
    """The two pictures side by side, or one above the other; None where the image cannot be had.

    Args:
        dataset: The dataset.
        analysis: What is wrong with the detections.
        position: Of the image in the dataset.
    """
    try:
        image = image_of(dataset, position)
    except DataError:
        return None
    if image is None:
        return None
    index = int((analysis.flat.positions == position).argmax())
    height, width = image.shape[-2:]
    wide = width > _WIDE * height
    factor = min((2 * _EDGE if wide else _EDGE) / max(height, width), 4.0)
    large = resized(image, factor)
    left = draw_boxes(large, *_objects(analysis, index, factor))
    right = draw_boxes(large, *_detections(analysis, index, factor))
    return _joined(left, right, below=wide)


def _objects(analysis: Analysis, index: int, factor: float) -> tuple[Tensor, list[str], list[Color]]:
    flat = analysis.flat
    rows = range(*flat.gt_offsets[index : index + 2].tolist())
    states = [GtState(analysis.gt_state[i]) for i in rows]
    texts = []
    for i, state in zip(rows, states, strict=True):
        name = "ignored" if state == GtState.IGNORED else flat.names[flat.gt_labels[i]]
        texts.append(
            {GtState.MISSED: f"{name}: missed", GtState.NEARLY: f"{name}: not found"}.get(state, name)
        )
    order = sorted(range(len(rows)), key=lambda k: states[k] == GtState.MISSED)
    return _ordered(
        flat.gt_boxes[rows.start : rows.stop], texts, [GT_COLORS[s] for s in states], order, factor
    )


def _detections(analysis: Analysis, index: int, factor: float) -> tuple[Tensor, list[str], list[Color]]:
    flat, errors = analysis.flat, analysis.errors
    first, last = flat.det_offsets[index : index + 2].tolist()
    rows = [i for i in range(first, last) if analysis.looked_at[i]]
    states = [State(errors.state[i]) for i in rows]
    texts = []
    for i, state in zip(rows, states, strict=True):
        text = f"{flat.names[flat.det_labels[i]]} {flat.det_scores[i]:.2f}"
        if state == State.CLASSIFICATION:
            text += f": is {flat.names[flat.gt_labels[errors.target[i]]]}"
        elif state != State.TRUE:
            text += f": {state.name.lower()}"
        texts.append(text)
    order = sorted(range(len(rows)), key=lambda k: (states[k] != State.TRUE, flat.det_scores[rows[k]]))
    return _ordered(flat.det_boxes[rows], texts, [STATE_COLORS[state] for state in states], order, factor)


def _ordered(
    boxes: object, texts: Sequence[str], colors: Sequence[Color], order: Sequence[int], factor: float
) -> tuple[Tensor, list[str], list[Color]]:
    corners = torch.as_tensor(boxes, dtype=torch.float64).reshape(-1, 4).clone()
    corners[:, 2:] += corners[:, :2]
    chosen = torch.tensor(order, dtype=torch.int64)
    return (corners[chosen] * factor).float(), [texts[k] for k in order], [colors[k] for k in order]


def _joined(first: Tensor, second: Tensor, *, below: bool) -> UInt8[Tensor, "3 h w"]:
    height, width = first.shape[-2:]
    height += 22
    step = (0, height + 6) if below else (width + 8, 0)
    size = (width, 2 * height + 6) if below else (2 * width + 8, height)
    canvas = Image.new("RGB", size, (255, 255, 255))
    pen = ImageDraw.Draw(canvas)
    for picture, (x, y), title in ((first, (0, 0), "ground truth"), (second, step, "detected")):
        canvas.paste(Image.fromarray(picture.permute(1, 2, 0).numpy()), (x, y + 22))
        pen.text((x + 2, y + 2), title, fill=(0, 0, 0), font=font(15))
    flat = torch.frombuffer(bytearray(canvas.tobytes()), dtype=torch.uint8)
    return flat.view(canvas.height, canvas.width, 3).permute(2, 0, 1).contiguous()
