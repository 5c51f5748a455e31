"""Matrix NMS: every score is lowered in one step."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor

from detcore_postprocess import lanes
from detcore_postprocess.interface import Suppressed, Suppression

Kernel = Literal["gaussian", "linear"]
#: Least divisor: a box that repeats another fully lowers nobody's score.
_LEAST = 1e-12


class MatrixNMS(Suppression):
    """Scores are lowered by the overlap with better boxes, less so by boxes that are lowered themselves.

    A score is multiplied by the least, over the better boxes i of the group, of f(IoU with i) / f(m_i), m_i being
    the largest IoU of i with a box better than it. f(IoU) is exp(-``sigma`` IoU^2) or 1 - IoU. Of equal scores
    the first counts as better. For masks see :func:`mask_matrix_nms`.

    Wang et al., "SOLOv2: Dynamic and Fast Instance Segmentation" (arXiv:2003.10152).

    Args:
        kernel: f, "gaussian" or "linear".
        sigma: Of "gaussian"; larger ones lower scores more.
        filter_thr: Least score of a result, itself included; 0 keeps all.
    """

    def __init__(
        self,
        *,
        kernel: Kernel = "gaussian",
        sigma: Annotated[float, Field(gt=0)] = 2.0,
        filter_thr: Annotated[float, Field(ge=0, le=1)] = 0.0,
    ) -> None:
        self.kernel: Kernel = kernel
        self.sigma = sigma
        self.filter_thr = filter_thr

    @torch.no_grad()
    def __call__(
        self,
        boxes: Float[Tensor, "B T 4"],
        scores: Float[Tensor, "B T"],
        groups: Int[Tensor, "B T"],
        *,
        valid: Bool[Tensor, "B T"] | None = None,
        most: int | None = None,
    ) -> Suppressed:
        """See :class:`Suppression`."""
        boxes, scores, valid = lanes.cleaned(boxes, scores, valid)
        count = scores.shape[1] if most is None else lanes.FIRST * most
        if most is None or count >= scores.shape[1] or torch.compiler.is_compiling():
            return self._all(boxes, scores, groups, valid)
        rank = lanes.places(scores, valid)
        while True:
            left = self._all(boxes, scores, groups, valid & (rank < count))
            # Worse boxes change no better ones, and their scores only fall.
            promised = scores.masked_fill(~valid | (rank < count), -1).amax(1)
            worst = left.scores.masked_fill(~left.kept, -1).topk(most).values[:, -1]
            if bool(((promised < worst) | (promised < self.filter_thr)).all()):
                return left
            count *= 2

    def _all(self, boxes: Tensor, scores: Tensor, groups: Tensor, valid: Tensor) -> Suppressed:
        left = lanes.suppress_in_lanes(self._lower, boxes, scores, groups, valid, cells=lanes.PAIRED_CELLS)
        return left._replace(kept=left.kept & (left.scores >= self.filter_thr))

    def _lower(self, boxes: Tensor, scores: Tensor, groups: Tensor | None, valid: Tensor) -> Suppressed:
        most = torch.zeros_like(scores)
        for rows, overlaps in lanes.better_overlaps(boxes, groups):
            most[:, rows] = overlaps.amax(1)
        factor = torch.ones_like(scores)
        for rows, overlaps in lanes.better_overlaps(boxes, groups):
            factor[:, rows] = decay(overlaps, most[:, : rows.stop], self.kernel, self.sigma)
        return Suppressed(scores * factor, valid)


def decay(
    overlaps: Float[Tensor, "*S E c"],
    most: Float[Tensor, "*S E"],
    kernel: Kernel,
    sigma: float,
) -> Float[Tensor, "*S c"]:
    """What the scores of c boxes are multiplied with.

    Args:
        overlaps: With E better ones, 0 for those that do not count.
        most: The largest overlap of each of the E with one better than it.
        kernel: "gaussian" or "linear".
        sigma: Of "gaussian".
    """
    if kernel == "gaussian":
        ratio = torch.exp(sigma * (most.square()[..., None] - overlaps.square()))
    else:
        ratio = (1 - overlaps) / (1 - most).clamp(min=_LEAST)[..., None]
        # A repetition of another box has no say; the other one has.
        ratio = torch.where(most[..., None] < 1, ratio, 1)
    return ratio.amin(-2).clamp(max=1)
