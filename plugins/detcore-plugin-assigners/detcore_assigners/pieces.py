"""Parts of a batch: some of its images, and of these only the rows that some image uses."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, NamedTuple, TypeVar

from jaxtyping import Bool
from torch import Tensor

from detcore.masks import Masks
from detcore.structures import ImageBatch, Predictions, Targets
from detcore_assigners.overlaps import slices

S = TypeVar("S", Predictions, Targets, ImageBatch, Masks)


class Piece(NamedTuple):
    """Some images of a batch, without the rows that all of them have as padding at the end.

    Args:
        start: The first image.
        predictions: Theirs.
        targets: Theirs; fewer rows than in the batch.
        batch: Theirs, or None.
    """

    start: int
    predictions: Predictions
    targets: Targets
    batch: ImageBatch | None


def pieces(
    predictions: Predictions, targets: Targets, batch: ImageBatch | None, rows: Bool[Tensor, "B M"]
) -> Iterator[Piece]:
    """The batch in pieces of at most ``overlaps.CHUNK`` pairs, or of one image; images without rows may miss.

    Args:
        predictions: N per image.
        targets: Ground truth.
        batch: The images, or None.
        rows: Rows that matter, on the host.
    """
    images, count = predictions.boxes.shape[:2]
    for start, stop in slices(images, count * rows.shape[1]):
        last = int((rows[start:stop].any(dim=0).nonzero()[:, 0] + 1).max()) if rows[start:stop].any() else 0
        if last and count:
            here = slice(start, stop)
            cut = _cut(targets.replace(semantic=None), (here, slice(0, last)))
            yield Piece(start, _cut(predictions, here), cut, None if batch is None else _cut(batch, here))


def _cut(structure: S, where: Any) -> S:
    """The entries at ``where`` of everything that a structure has per image."""

    def cut(value: Any) -> Any:
        if isinstance(value, Masks):
            names = ("offsets", "sizes", "origins")
            return dataclasses.replace(value, **{name: getattr(value, name)[where] for name in names})
        return value[where] if isinstance(value, Tensor) else value

    values = {f.name: getattr(structure, f.name) for f in dataclasses.fields(structure)}
    return dataclasses.replace(structure, **{name: cut(value) for name, value in values.items()})
