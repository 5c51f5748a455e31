"""Precision-recall curves as pictures inside a page."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from jaxtyping import Float
from numpy import ndarray

from detcore_eval.curves import RECALLS
from detcore_eval.drawing import color_of

_SIDE, _LEFT, _TOP, _BOTTOM = 320, 44, 12, 40


def curves(rows: Sequence[tuple[int, str, Float[ndarray, "101"]]], title: str) -> str:
    """Precision over recall, a line per class.

    Args:
        rows: Label, name and precision at the recalls 0, 0.01, ..., 1.
        title: Plain text.
    """
    width, height = _LEFT + _SIDE + 12, _TOP + _SIDE + _BOTTOM
    parts = [
        f"<svg class='curves' role='img' viewBox='0 0 {width} {height}' width='{width}' height='{height}'>",
        f"<title>{escape(title)}</title>",
        *_grid(),
    ]
    for label, name, precision in rows:
        points = " ".join(f"{_x(r):.1f},{_y(p):.1f}" for r, p in zip(RECALLS, precision, strict=True))
        parts.append(
            f"<polyline fill='none' stroke='{hex_of(label)}' stroke-width='2' points='{points}'>"
            f"<title>{escape(name)}</title></polyline>"
        )
    return "".join(parts) + "</svg>"


def hex_of(label: int) -> str:
    """The class's colour, as in pictures."""
    return "#" + "".join(f"{channel:02x}" for channel in color_of(label))


def _grid() -> list[str]:
    parts = []
    for i in range(6):
        value = i / 5
        x, y = _x(value), _y(value)
        parts += [
            f"<path d='M{x:.1f} {_y(0):.1f}V{_y(1):.1f}M{_x(0):.1f} {y:.1f}H{_x(1):.1f}' stroke='#ddd'/>",
            f"<text x='{x:.1f}' y='{_y(0) + 16:.1f}' text-anchor='middle'>{value:g}</text>",
            f"<text x='{_x(0) - 6:.1f}' y='{y + 4:.1f}' text-anchor='end'>{value:g}</text>",
        ]
    middle = _LEFT + _SIDE / 2
    return [
        *parts,
        f"<text x='{middle:.0f}' y='{_y(0) + 34:.0f}' text-anchor='middle'>recall</text>",
        f"<text transform='translate(12 {_TOP + _SIDE / 2:.0f}) rotate(-90)' text-anchor='middle'>precision</text>",
    ]


def _x(recall: float) -> float:
    return _LEFT + _SIDE * recall


def _y(precision: float) -> float:
    return _TOP + _SIDE * (1 - precision)
