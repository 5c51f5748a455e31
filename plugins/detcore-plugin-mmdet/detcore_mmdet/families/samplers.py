"""Samplers."""

from __future__ import annotations

from typing import Any

from detcore_mmdet.options import Options, Translator


def pseudo(o: Options) -> dict[str, Any]:
    """PseudoSampler: takes everything, and in the reference any options, without effect."""
    for name in [name for name in o.data if name != "type"]:
        o.ignore(name, "a sampler that takes everything has no options")
    return {"type": "PseudoSampler"}


def random(o: Options) -> dict[str, Any]:
    """RandomSampler. Ground truths are put among the proposals by the RoI head, not here."""
    added = o.take("add_gt_as_proposals", True)
    if added and o.place and "roi_head" not in o.place.split("."):
        o.problem(
            "add_gt_as_proposals",
            "ground truths cannot be added to the anchors of a dense head",
            "set it to False",
        )
    return {"type": "RandomSampler", **o.same("num", "pos_fraction", "neg_pos_ub")}


TRANSLATORS: dict[str, Translator] = {"PseudoSampler": pseudo, "RandomSampler": random}
