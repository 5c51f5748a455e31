"""Which priors take part: inside the image, and not in a region to ignore."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from detcore.structures import Priors, Targets
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


def _regions(targets: Targets) -> Float[Tensor, "B I 4"]:
    """The regions to ignore, packed to the front; other rows hold zeros, which overlap with nothing."""
    flags = targets.valid & targets.ignore
    boxes = targets.boxes.float() * flags[..., None]
    if torch.compiler.is_compiling():
        return boxes
    # the one wait for the device: regions are rare, and M overlaps per prior for none of them are not free
    count = int(flags.sum(dim=1).amax())
    order = flags.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :count]
    return boxes.gather(1, order[..., None].expand(-1, -1, 4))
