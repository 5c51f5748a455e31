"""The interface of box heads of a second stage, and the samples that they learn from."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, NamedTuple

from jaxtyping import Bool, Float, Int
from pydantic import BeforeValidator, Field
from torch import Tensor, nn

from detcore.component import Component
from detcore.structures import Losses


def _pair(value: Any) -> Any:
    return (value, value) if isinstance(value, int) and not isinstance(value, bool) else value


_Cells = Annotated[int, Field(ge=1)]
#: (h, w) of region features, in cells; one number stands for both.
RoISize = Annotated[tuple[_Cells, _Cells], BeforeValidator(_pair)]


class BBoxOutput(NamedTuple):
    """What a box head predicts for P regions.

    Args:
        logits: [P, C].
        codes: [P, A, D], for each of A = K classes, or A = 1 where the classes share them.
    """

    logits: Float[Tensor, "P C"]
    codes: Float[Tensor, "P A D"]


@dataclass(frozen=True)
class RoISample:
    """The sampled regions of a batch as one list of P rows; rows of weight 0 are padding.

    Args:
        boxes: Regions, xyxy in pixels.
        image: Image of each.
        real: Which rows are samples rather than padding.
        added: Which rows are ground truths that joined the proposals.
        positive: Which rows answer for a ground truth.
        labels: The class that each should predict; K is background.
        weight: Weight of each row in the classification loss.
        gt_index: Row of its ground truth in ``Targets``, 0 where not positive.
        gt_boxes: Box of its ground truth, the region's own where not positive.
    """

    boxes: Float[Tensor, "P 4"]
    image: Int[Tensor, "P"]
    real: Bool[Tensor, "P"]
    added: Bool[Tensor, "P"]
    positive: Bool[Tensor, "P"]
    labels: Int[Tensor, "P"]
    weight: Float[Tensor, "P"]
    gt_index: Int[Tensor, "P"]
    gt_boxes: Float[Tensor, "P 4"]


class BBoxHead(Component, nn.Module):
    """Classes and refined boxes of regions, from their features.

    A box head declares ``in_channels: int = wired()``, ``roi_feat_size: RoISize = wired()`` and
    ``num_classes: int = wired()``.

    Invariants: a row's prediction does not depend on the other rows (in evaluation mode); ``loss`` gives
    every trainable parameter a finite gradient, with no positive and with no row too.
    """

    kind: ClassVar[str] = "bbox_heads"

    @abstractmethod
    def forward(self, features: Float[Tensor, "P F h w"]) -> BBoxOutput:
        """The network alone."""

    @abstractmethod
    def loss(self, output: BBoxOutput, sample: RoISample) -> Losses:
        """The loss terms of the sampled regions."""

    @abstractmethod
    def class_losses(self, output: BBoxOutput, labels: Int[Tensor, "P"]) -> Float[Tensor, "P"]:
        """The classification loss of each row alone, for samplers that rank by it; K is background."""

    @abstractmethod
    def scores(self, output: BBoxOutput) -> Float[Tensor, "P K"]:
        """Probabilities of the K classes, background left out."""

    @abstractmethod
    def decode(
        self,
        codes: Float[Tensor, "P D"],
        boxes: Float[Tensor, "P 4"],
        sizes: Int[Tensor, "P 2"] | None = None,
    ) -> Float[Tensor, "P 4"]:
        """The refined boxes.

        Args:
            codes: Of one class per row.
            boxes: The regions.
            sizes: (h, w) to clip to, per row; no clipping where None.
        """
