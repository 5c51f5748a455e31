"""The masks of ground truths at the places at which those of predictions were taken."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from detcore.masks import Masks
from detcore.structures import Predictions, Targets
from detcore_assigners.overlaps import slices


class MaskPlaces:
    """M ground truths' masks at S places, some rows at a time: [B, M, S] may be gigabytes.

    Args:
        masks: The ground truths'.
        points: (x, y) of the places, in pixels.
    """

    def __init__(self, masks: Masks, points: Float[Tensor, "B S 2"]) -> None:
        self._masks, self._points = masks, points

    def inner(self, values: Float[Tensor, "B N S"]) -> Float[Tensor, "B N M"]:
        """The sum over places of each prediction's value times each ground truth's mask (0..1)."""
        with torch.autocast(values.device.type, enabled=False):
            return torch.cat(self._by_rows(lambda masks: values @ masks.mT), dim=2)

    def sums(self, power: int) -> Float[Tensor, "B M"]:
        """The sum over places of each ground truth's mask to a power."""
        return torch.cat(self._by_rows(lambda masks: (masks**power).sum(dim=2)), dim=1)

    def _by_rows(self, of: Callable[[Float[Tensor, "B m S"]], Tensor]) -> list[Tensor]:
        images, rows = self._masks.offsets.shape
        places = self._points.shape[1]
        found = []
        for start, stop in slices(rows, images * places):
            row = torch.arange(start, stop, device=self._points.device).expand(images, -1)
            points = self._points[:, None].expand(-1, stop - start, -1, -1)
            found.append(of(self._masks.sample(points, row)))
        return found


def places_of(predictions: Predictions, targets: Targets) -> tuple[Float[Tensor, "B N S"], MaskPlaces]:
    """Predicted mask logits in float32, and the ground truths' masks at the same places.

    These are ``predictions.mask_points``; where there are none, the masks are maps, and the places the centres
    of their cells, which cover the whole (padded) image.

    Raises:
        ValueError: Predictions or targets have no masks, or points and masks differ in number.
    """
    if predictions.masks is None or targets.masks is None:
        which = "predictions" if predictions.masks is None else "targets"
        raise ValueError(f"this cost compares masks, and {which}.masks is None; give masks, or leave it out")
    masks = predictions.masks.float()
    points = predictions.mask_points
    if points is None:
        points = _centers(masks, targets.masks.image_size)
    masks = masks.flatten(2)
    if points.shape[1] != masks.shape[2]:
        raise ValueError(
            f"predictions.mask_points should tell the place of each of the {masks.shape[2]} mask values, got "
            f"{points.shape[1]} points"
        )
    return masks, MaskPlaces(targets.masks, points.float())


def _centers(masks: Float[Tensor, "B N *S"], size: tuple[int, int]) -> Float[Tensor, "B S 2"]:
    """The centres of the maps' cells, in pixels of an image of (h, w) = ``size``."""
    if masks.dim() != 4:
        raise ValueError(
            f"predictions.masks should be maps [B, N, h, w] where there are no mask_points, got shape "
            f"{list(masks.shape)}"
        )
    height, width = masks.shape[2:]
    y = (torch.arange(height, device=masks.device) + 0.5) * (size[0] / max(1, height))
    x = (torch.arange(width, device=masks.device) + 0.5) * (size[1] / max(1, width))
    points = torch.stack((x.expand(height, width), y[:, None].expand(height, width)), dim=-1)
    return points.reshape(1, -1, 2).expand(len(masks), -1, -1)
