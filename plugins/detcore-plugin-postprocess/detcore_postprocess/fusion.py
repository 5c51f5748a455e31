"""Weighted boxes fusion: detections of several models averaged instead of suppressed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from detcore.boxes import pairwise_overlap
from detcore.errors import ConfigError
from detcore.structures import Detections
from detcore_postprocess.lanes import image_groups, lanes_of
from detcore_postprocess.merging import best_detections

Confidence = Literal["avg", "max", "box_and_model_avg", "absent_model_aware_avg"]


@torch.no_grad()
def weighted_boxes_fusion(
    detections: Sequence[Detections],
    *,
    weights: Sequence[float] | None = None,
    iou_thr: float = 0.55,
    skip_box_thr: float = 0.0,
    conf_type: Confidence = "avg",
    allows_overflow: bool = False,
    max_per_img: int | None = None,
) -> Detections:
    """One box for each cluster of boxes: their mean, weighted by score.

    1. Scores are multiplied by their model's weight; boxes are taken in descending order, of equal ones the
       first.
    2. A box joins the cluster of its class with whose mean its IoU is the largest and above ``iou_thr``, or
       founds one. The mean moves with each.
    3. A cluster's score comes from its members' by ``conf_type``.

    The steps of all images and classes run side by side. Sums are float64.

    Solovyev et al., "Weighted boxes fusion: Ensembling boxes from different object detection models"
    (arXiv:1910.13302).

    Args:
        detections: By model, or by version of the images; of the same images in the same pixels.
        weights: Of the models; 1 each where None.
        iou_thr: IoU, itself excluded, from which a box joins a cluster.
        skip_box_thr: Least score, itself included, before ``weights``.
        conf_type: With n members, T models of total weight W: "avg" is mean score * min(T, n) / W; "max" the
            largest score / the largest weight; "box_and_model_avg" the sum of scores / that of the members'
            weights * (weight of the models that take part / W); "absent_model_aware_avg" the sum of scores /
            (sum of the members' weights + the weight of the models that do not take part).
        allows_overflow: Whether "avg" takes n instead of min(T, n), so that scores may exceed 1.
        max_per_img: Q; where None, as many as the image with the most has.

    Returns:
        The clusters, by descending score. Masks are not fused.

    Raises:
        ConfigError: There are no models, or weights that are not one positive number for each.
    """
    shares = _weights(detections, weights)
    every = [torch.cat([getattr(own, name) for own in detections], 1) for name in _COLUMNS]
    boxes, scores, labels, valid = every
    counts = [own.scores.shape[1] for own in detections]
    model = torch.repeat_interleave(torch.tensor(counts)).to(scores.device).expand_as(labels)
    valid = valid & (scores >= skip_box_thr) & ~boxes.isnan().any(-1)
    boxes, scores, shares = boxes.double(), scores.double(), shares.to(scores.device)
    found = _Rows(boxes.flatten(0, 1), (scores * shares[model]).flatten(), model.flatten())
    fused_boxes, fused_scores = torch.zeros_like(found.boxes), torch.zeros_like(found.scores)
    heads = torch.zeros_like(valid.flatten())
    for rows, real in lanes_of(image_groups(labels).flatten(), found.scores, valid.flatten()):
        clusters = _cluster(found.boxes[rows], found.scores[rows], found.model[rows], real, shares, iou_thr)
        confidence = clusters.confidence(conf_type, shares, allows_overflow)
        # The place in the lane of a cluster is that of the box that founded it.
        used = clusters.number > 0
        fused_boxes[rows[used]] = clusters.means[used]
        fused_scores[rows[used]] = confidence[used]
        heads[rows[used]] = True
    kept = heads.reshape(valid.shape)
    most = (int(kept.sum(1).amax()) if len(kept) else 0) if max_per_img is None else max_per_img
    result = Detections(
        boxes=fused_boxes.reshape(boxes.shape).to(every[0].dtype),
        scores=fused_scores.reshape(scores.shape).to(every[1].dtype),
        labels=labels,
        valid=kept,
        image_sizes=detections[0].image_sizes,
    )
    return best_detections(result, most)


#: Least divisor.
_TINY = 1e-300
_COLUMNS = ("boxes", "scores", "labels", "valid")


class _Rows(NamedTuple):
    boxes: Float[Tensor, "P 4"]
    scores: Float[Tensor, "P"]
    model: Int[Tensor, "P"]


class _Clusters(NamedTuple):
    """Sums over the members of each cluster, in the place of the box that founded it."""

    means: Float[Tensor, "R L 4"]  # not a sum: the box
    boxes: Float[Tensor, "R L 4"]  # weighted by score
    scores: Float[Tensor, "R L"]
    best: Float[Tensor, "R L"]
    shares: Float[Tensor, "R L"]
    number: Int[Tensor, "R L"]
    present: Bool[Tensor, "R L T"]

    def confidence(self, kind: Confidence, shares: Tensor, allows_overflow: bool) -> Float[Tensor, "R L"]:
        """The scores of the clusters."""
        total, count = shares.sum(), self.number.clamp(min=1)
        if kind == "max":
            return self.best / shares.amax()
        if kind == "avg":
            most = count if allows_overflow else count.clamp(max=len(shares))
            return self.scores / count * most / total
        presence = (self.present * shares).sum(-1)
        if kind == "box_and_model_avg":
            return self.scores / self.shares.clamp(min=1e-12) * presence / total
        return self.scores / (self.shares + total - presence)


def _cluster(
    boxes: Float[Tensor, "R L 4"],
    scores: Float[Tensor, "R L"],
    model: Int[Tensor, "R L"],
    real: Bool[Tensor, "R L"],
    shares: Float[Tensor, "T"],
    iou_thr: float,
) -> _Clusters:
    """Takes the boxes of each lane one by one, all lanes side by side."""
    clusters = _Clusters(
        means=torch.zeros_like(boxes),
        boxes=torch.zeros_like(boxes),
        scores=torch.zeros_like(scores),
        best=torch.zeros_like(scores),
        shares=torch.zeros_like(scores),
        number=torch.zeros_like(model),
        present=torch.zeros(*model.shape, len(shares), dtype=torch.bool, device=model.device),
    )
    lane = torch.arange(len(boxes), device=boxes.device)
    for step in range(boxes.shape[1]):
        place = torch.full_like(lane, step)
        if step:
            overlaps = pairwise_overlap(boxes[:, step : step + 1], clusters.means[:, :step])[:, 0]
            best, near = overlaps.masked_fill(clusters.number[:, :step] == 0, -1).max(1)
            place = torch.where(best > iou_thr, near, place)
        here, score = real[:, step], torch.where(real[:, step], scores[:, step], 0)
        clusters.boxes[lane, place] += boxes[:, step] * score[:, None]
        clusters.scores[lane, place] += score
        clusters.best[lane, place] = torch.maximum(clusters.best[lane, place], score)
        clusters.shares[lane, place] += torch.where(here, shares[model[:, step]], 0)
        clusters.number[lane, place] += here.long()
        clusters.present[lane, place, model[:, step]] |= here
        mean = clusters.boxes[lane, place] / clusters.scores[lane, place].clamp(min=_TINY)[:, None]
        founder = torch.where((place == step)[:, None], boxes[:, step], clusters.means[lane, place])
        clusters.means[lane, place] = torch.where((score > 0)[:, None], mean, founder)
    return clusters


def _weights(detections: Sequence[Detections], weights: Sequence[float] | None) -> Float[Tensor, "T"]:
    shares = [1.0] * len(detections) if weights is None else list(weights)
    sound = all(0 < share < math.inf for share in shares)
    if not detections or len(shares) != len(detections) or not sound:
        raise ConfigError(
            f"weights should be one positive number for each of {len(detections)} models, of which there is at "
            f"least one; got {shares}",
            "weighted_boxes_fusion",
        )
    return torch.tensor(shares, dtype=torch.float64)
