"""The interfaces of losses."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, Literal

from jaxtyping import Float, Int
from torch import Tensor, nn

from detcore.component import Component

Reduction = Literal["none", "mean", "sum"]


class Loss(Component, nn.Module):
    """A comparison of predictions with targets.

    Every loss has the parameters ``reduction`` and ``loss_weight``.

    Invariants: finite value and gradient on empty input (where "mean" and "sum" give 0, connected to ``pred``), on
    zero weights and on degenerate boxes; rows of weight 0 contribute neither value nor gradient.
    """

    kind: ClassVar[str] = "losses"

    #: Whether the loss of a concatenation is the sum over its pieces; if not, heads call it level by level.
    additive: ClassVar[bool] = True

    @abstractmethod
    def forward(
        self,
        pred: Tensor,
        target: Tensor,
        *,
        weight: Tensor | None = None,
        avg_factor: Tensor | float | None = None,
        reduction: Reduction | None = None,
    ) -> Tensor:
        """The weighted, reduced loss.

        Args:
            pred: Predictions, one row each.
            target: Targets, as the subclass says.
            weight: Weight per row, or per value where the shape is that of ``pred``.
            avg_factor: Divisor of the sum in place of the count; for reduction "mean" only.
            reduction: Replaces the loss's own.

        Raises:
            ValueError: ``avg_factor`` is given for reduction "sum".
        """


class ClassificationLoss(Loss):
    """A loss on class logits.

    ``target`` holds labels [*] where the number of classes K means background, or soft targets shaped like
    ``pred`` for losses that say so.
    """

    #: Whether the loss regresses to the localisation quality of positives; if so, heads measure it and hand it over.
    uses_quality: ClassVar[bool] = False

    @abstractmethod
    def channels(self, num_classes: int) -> int:
        """Logit channels C for K classes: K for sigmoid losses, K + 1 (background last) for softmax."""

    @abstractmethod
    def scores(self, logits: Float[Tensor, "*S C"]) -> Float[Tensor, "*S K"]:
        """Probabilities of the K classes, background left out."""

    @abstractmethod
    def forward(
        self,
        pred: Float[Tensor, "*S C"],
        target: Int[Tensor, "*S"] | Float[Tensor, "*S C"],
        *,
        weight: Tensor | None = None,
        avg_factor: Tensor | float | None = None,
        reduction: Reduction | None = None,
        quality: Float[Tensor, "*S"] | None = None,
    ) -> Tensor:
        """As :meth:`Loss.forward`, and ``quality`` says how well each row is localised.

        It is 0..1, the IoU of the row's decoded box with its ground truth; looked at only where ``uses_quality``, in
        rows that have a label. No gradient flows back into it.
        """


class BoxLoss(Loss):
    """A loss on boxes. ``pred`` and ``target`` are [n, D] codes or [n, 4] boxes xyxy, as ``space`` says."""

    #: What the head hands over: "codes" as the network predicts them, or decoded "boxes".
    space: ClassVar[Literal["codes", "boxes"]] = "codes"
