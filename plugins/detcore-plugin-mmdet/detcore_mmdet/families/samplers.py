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
    """RandomSampler."""
    return {"type": "RandomSampler", **_numbers(o)}


def instance_balanced(o: Options) -> dict[str, Any]:
    """InstanceBalancedPosSampler; it does not fall short of its number here."""
    return {"type": "InstanceBalancedPosSampler", **_numbers(o)}


def iou_balanced(o: Options) -> dict[str, Any]:
    """IoUBalancedNegSampler, with bins up to the highest overlap of all priors."""
    result = {"type": "IoUBalancedNegSampler", **_numbers(o), **o.same("floor_fraction", "num_bins")}
    floor = o.take("floor_thr", -1)
    return result | ({"floor_thr": floor} if floor >= 0 else {}) | {"bins_over": "all"}


def combined(o: Options) -> dict[str, Any]:
    """CombinedSampler; its parts get their numbers from it."""
    result = {"type": "CombinedSampler", **_numbers(o)}
    for name in ("pos_sampler", "neg_sampler"):
        result[name] = o.part(name)
    return result


def ohem(o: Options) -> dict[str, Any]:
    """OHEMSampler; the head that it asks for losses is its owner."""
    o.only("loss_key", "loss_cls")
    o.take("context")
    return {"type": "OHEMSampler", **_numbers(o)}


def score_hlr(o: Options) -> dict[str, Any]:
    """ScoreHLRSampler; the head that it asks for scores is its owner."""
    o.take("context")
    return {"type": "ScoreHLRSampler", **_numbers(o), **o.same("k", "bias", "score_thr", "iou_thr")}


def _numbers(o: Options) -> dict[str, Any]:
    """How many are taken. Ground truths are put among the proposals by the RoI head, not here."""
    places = (o.place or "").split(".")
    part = places[-1] in ("pos_sampler", "neg_sampler")
    added = o.take("add_gt_as_proposals", True)
    if added and o.place and not part and "roi_head" not in places:
        o.problem(
            "add_gt_as_proposals",
            "ground truths cannot be added to the anchors of a dense head",
            "set it to False",
        )
    return o.same("num", "pos_fraction", "neg_pos_ub")


TRANSLATORS: dict[str, Translator] = {
    "CombinedSampler": combined,
    "InstanceBalancedPosSampler": instance_balanced,
    "IoUBalancedNegSampler": iou_balanced,
    "OHEMSampler": ohem,
    "PseudoSampler": pseudo,
    "RandomSampler": random,
    "ScoreHLRSampler": score_hlr,
}
