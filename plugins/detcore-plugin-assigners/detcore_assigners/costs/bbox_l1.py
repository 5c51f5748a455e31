"""The distance of boxes as a cost."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from detcore.structures import ImageBatch, Predictions, Targets
from detcore_assigners.costs.match_cost import MatchCost


class BBoxL1Cost(MatchCost):
    """The sum of the absolute differences of the four coordinates, as parts of the image's width and height.

    Carion et al., "End-to-End Object Detection with Transformers" (arXiv:2005.12872), equation 9.

    Args:
        box_format: Which coordinates: the corners ("xyxy", as in Sparse R-CNN), or centre, width and height
            ("xywh", as in DETR).
        weight: Factor.
    """

    needs = frozenset({"boxes", "batch"})

    def __init__(
        self,
        *,
        box_format: Literal["xyxy", "xywh"] = "xyxy",
        weight: Annotated[float, Field(ge=0)] = 1.0,
    ) -> None:
        self.box_format = box_format
        self.weight = weight

    def cost(
        self, predictions: Predictions, targets: Targets, batch: ImageBatch | None = None
    ) -> Float[Tensor, "B N M"]:
        """See :class:`~detcore_assigners.costs.match_cost.MatchCost`; reads boxes and the images' true sizes.

        Raises:
            ValueError: There is no batch.
        """
        if batch is None:
            raise ValueError("BBoxL1Cost measures in parts of the image, got batch=None; pass the ImageBatch")
        size = batch.sizes.flip(-1).float().repeat(1, 2)[:, None]
        boxes, gts = (self._converted(b.float()) / size for b in (predictions.boxes, targets.boxes))
        return torch.cdist(boxes, gts, p=1) * self.weight

    def _converted(self, boxes: Float[Tensor, "B n 4"]) -> Float[Tensor, "B n 4"]:
        if self.box_format == "xyxy":
            return boxes
        low, high = boxes[..., :2], boxes[..., 2:]
        return torch.cat(((low + high) / 2, high - low), dim=-1)
