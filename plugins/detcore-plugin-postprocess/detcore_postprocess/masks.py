"""Matrix NMS of masks."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from detcore_postprocess.interface import Suppressed
from detcore_postprocess.matrix_nms import Kernel, decay
from detcore_postprocess.results import keep_best


@torch.no_grad()
def mask_matrix_nms(
    masks: Bool[Tensor, "B N h w"],
    scores: Float[Tensor, "B N"],
    labels: Int[Tensor, "B N"],
    *,
    valid: Bool[Tensor, "B N"] | None = None,
    areas: Float[Tensor, "B N"] | None = None,
    kernel: Kernel = "gaussian",
    sigma: float = 2.0,
    filter_thr: float = 0.0,
    nms_pre: int | None = None,
) -> Suppressed:
    """Lowers the scores of masks that repeat better ones of their class; see :class:`MatrixNMS`.

    Wang et al., "SOLOv2: Dynamic and Fast Instance Segmentation" (arXiv:2003.10152).

    Args:
        masks: Binary masks. Needs B * N * N numbers of memory, beside the masks as float.
        scores: Not negative. Of equal ones the first counts as better.
        labels: Masks of different classes do not meet.
        valid: Rows that take part; all where None.
        areas: Areas for the union; counted where None. Where they were counted elsewhere, at another
            resolution or before a threshold, the reference's numbers need those.
        kernel: "gaussian" or "linear".
        sigma: Of "gaussian".
        filter_thr: Least lowered score of a result, itself included; 0 keeps all.
        nms_pre: Most masks per image that take part, the best ones; all where None.

    Returns:
        Lowered scores, and which rows stay; see :func:`keep_best` for the best of them in order.
    """
    if not scores.shape[1]:
        return Suppressed(scores, torch.zeros_like(scores, dtype=torch.bool))
    count = scores.shape[1] if nms_pre is None else min(nms_pre, scores.shape[1])
    every = torch.ones_like(scores, dtype=torch.bool) if valid is None else valid
    slots, real = keep_best(scores, every, count)
    image = torch.arange(len(scores), device=scores.device)[:, None]
    flat = torch.where(real[..., None], masks[image, slots].flatten(2).to(scores.dtype), 0)
    sizes = flat.sum(-1) if areas is None else areas.gather(1, slots).to(flat.dtype)
    intersection = flat @ flat.mT
    union = sizes[:, :, None] + sizes[:, None, :] - intersection
    own = labels.gather(1, slots)
    counts = (own[:, :, None] == own[:, None, :]).triu(1) & real[:, :, None]
    overlaps = torch.where(counts & (union > 0), intersection / union.clamp(min=1e-6), 0)
    lowered = scores.gather(1, slots) * decay(overlaps, overlaps.amax(1), kernel, sigma)
    # Padding points at slot 0; it must not write there.
    target = torch.where(real, slots, scores.shape[1])
    result = torch.cat((scores, scores.new_zeros(len(scores), 1)), 1).scatter(1, target, lowered)
    kept = torch.zeros_like(result, dtype=torch.bool).scatter(1, target, real & (lowered >= filter_thr))
    return Suppressed(result[:, :-1], kept[:, :-1])
