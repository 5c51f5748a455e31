"""Which priors take part: inside the image, and not in a region to ignore."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from detcore.boxes import contains
from detcore.structures import Priors, Targets
from detcore_assigners.choice import packed
from detcore_assigners.overlaps import BoxOverlaps, slices


def ignored_priors(
    priors: Priors, targets: Targets, threshold: float | None, wrt_candidates: bool = True
) -> Bool[Tensor, "B N"]:
    """The priors that lie in a region to ignore.

    Args:
        priors: N priors.
        targets: Ground truth; its rows flagged ``ignore`` are the regions.
        threshold: Ignored above this overlap; None means that regions have no effect.
        wrt_candidates: Whether the overlap is the part of the prior that the region covers; else the part of
            the region that the prior covers.
    """
    ignored = torch.zeros((len(targets), len(priors)), dtype=torch.bool, device=targets.boxes.device)
    if threshold is None:
        return ignored
    regions = _regions(targets)
    images, count = regions.shape[:2]
    if count == 0:
        return ignored
    overlaps = BoxOverlaps(regions, priors.boxes.to(regions.dtype), "prior" if wrt_candidates else "row")
    for start, stop in slices(len(priors), images * count):
        ignored[:, start:stop] = overlaps(start, stop).amax(dim=1) > threshold
    return ignored


def ignored_centers(priors: Priors, targets: Targets, scale: float | None) -> Bool[Tensor, "B N"]:
    """The priors whose centre lies in a region to ignore, scaled about its own centre.

    Args:
        priors: N priors.
        targets: Ground truth; its rows flagged ``ignore`` are the regions.
        scale: Factor of the regions' width and height; None means that regions have no effect.
    """
    ignored = torch.zeros((len(targets), len(priors)), dtype=torch.bool, device=targets.boxes.device)
    if scale is None:
        return ignored
    regions = scaled(_regions(targets), scale)
    images, count = regions.shape[:2]
    centers = priors.centers.to(regions.dtype)
    for start, stop in slices(len(priors), images * count) if count else ():
        ignored[:, start:stop] = contains(regions, centers[..., start:stop, :]).any(dim=2)
    return ignored


def scaled(boxes: Float[Tensor, "*S 4"], scale: float) -> Float[Tensor, "*S 4"]:
    """Boxes with width and height times ``scale``, about their centres."""
    center = (boxes[..., 2:] + boxes[..., :2]) * 0.5
    half = (boxes[..., 2:] - boxes[..., :2]) * 0.5 * scale
    return torch.cat((center - half, center + half), dim=-1)


def _regions(targets: Targets) -> Float[Tensor, "B I 4"]:
    """The regions to ignore, packed to the front; other rows hold zeros, which overlap with nothing."""
    flags = targets.valid & targets.ignore
    boxes = targets.boxes.float() * flags[..., None]
    order = packed(flags)  # regions are rare, and M overlaps per prior for none of them are not free
    return boxes.gather(1, order[..., None].expand(-1, -1, 4))
