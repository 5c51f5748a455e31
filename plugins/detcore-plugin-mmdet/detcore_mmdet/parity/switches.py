"""Parameters whose default is right where the reference is not, and whose other value gives its numbers."""

from __future__ import annotations

from typing import Any, NamedTuple


class Switch(NamedTuple):
    """One deviation.

    Args:
        component: Where it is.
        parameter: What switches it.
        reference: The value that the bridge sets.
        why: What is wrong with that value.
    """

    component: str
    parameter: str
    reference: Any
    why: str


SWITCHES = (
    Switch("PointAssigner", "first_of_equals", False, "ties are left to the order in which topk finds them"),
    Switch(
        "UniformAssigner", "first_of_equals", False, "ties are left to the order in which topk finds them"
    ),
    Switch("UniformAssigner", "last_choice_wins", True, "an object's last choice takes another's prior"),
    Switch(
        "GridAssigner", "own_cell", False, "anchors in other objects' cells answer; the last claimant wins"
    ),
    Switch(
        "RegionAssigner",
        "sequential",
        True,
        "a later object's border makes an earlier one's positives ignored",
    ),
    Switch("SimOTAAssigner", "match_outside", True, "an object with no prior near takes another object's"),
    Switch(
        "DynamicSoftLabelAssigner",
        "match_outside",
        True,
        "an object with no prior near takes another object's",
    ),
    Switch("SimOTAAssigner", "ignore_regions", False, "regions to ignore become background"),
    Switch("TaskAlignedAssigner", "eps", 1e-7, "soft labels vanish while the metric is tiny"),
    Switch("HungarianAssigner", "ignore_iof_thr", None, "queries on regions to ignore become background"),
    Switch("IoUBalancedNegSampler", "bins_over", "all", "bins reach over overlaps that no negative has"),
    Switch("LegacyDeltaXYWHBBoxCoder", "exact_decode", False, "decoding does not undo encoding"),
    Switch("BucketingBBoxCoder", "legacy_clip", True, "boxes are clipped a pixel short of the edge"),
    Switch("SSDAnchorGenerator", "scale_major", True, "the anchors' order is not the published one"),
    Switch("LegacyAnchorGenerator", "center_offset", 0.0, "the anchors' centres lie on the cells' corners"),
    Switch("GHMC", "bias_correction", False, "moving averages begin at zero and stay too small"),
    Switch("GHMR", "bias_correction", False, "moving averages begin at zero and stay too small"),
    Switch("BalancedL1Loss", "smooth", False, "the slope jumps at beta"),
    Switch("SIoULoss", "neg_gamma", False, "distance is rewarded"),
    Switch("SeesawLoss", "count_ignored", True, "rows of weight zero count as examples of their class"),
    Switch("GeneralizedAttention", "transposed_query", True, "queries are transposed; square maps only"),
)
