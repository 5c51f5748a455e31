"""Heads of a torchvision model, and their parts, as detcore's configuration."""

from __future__ import annotations

import math
from typing import Any

from torch import nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops import MultiScaleRoIAlign

from detcore_torchvision.networks import Config, norm_of_block
from detcore_torchvision.problems import Findings

#: The loss on codes of both stages, fixed in torchvision.
_SMOOTH_L1 = {"type": "SmoothL1Loss", "beta": 1 / 9}


def anchors_of(path: str, generator: Any, findings: Findings) -> Config:
    """The prior generator."""
    if not findings.is_a(path, generator, AnchorGenerator):
        return {}
    ratios = findings.same(
        f"{path}.aspect_ratios", map(tuple, generator.aspect_ratios), "the ratios of a level"
    )
    return {
        "type": "AnchorGenerator",
        "ratios": list(ratios),
        "sizes": [[float(size) for size in level] for level in generator.sizes],
        "round_corners": True,
        "step": "image",
    }


def coder_of(coder: Any) -> Config:
    """The box coder: torchvision multiplies codes by weights where detcore divides by deviations."""
    return {
        "type": "DeltaXYWHBBoxCoder",
        "target_stds": [1 / float(weight) for weight in coder.weights],
        "wh_ratio_clip": round(math.exp(-coder.bbox_xform_clip), 12),
        "limit_shrinking": False,
    }


def assigner_of(matcher: Any) -> Config:
    """The assigner."""
    low = bool(matcher.allow_low_quality_matches)
    return {
        "type": "MaxIoUAssigner",
        "pos_iou_thr": float(matcher.high_threshold),
        "neg_iou_thr": float(matcher.low_threshold),
        "min_pos_iou": 0.0 if low else float(matcher.high_threshold),
        "match_low_quality": low,
    }


def _sampler_of(sampler: Any) -> Config:
    return {
        "type": "RandomSampler",
        "num": int(sampler.batch_size_per_image),
        "pos_fraction": float(sampler.positive_fraction),
    }


# ------------------------------------------------------------------------------------------------- RetinaNet


def retina_head_of(model: Any, findings: Findings) -> Config:
    """The dense head of a RetinaNet."""
    head = model.head
    if not findings.is_a("head", head, RetinaNetHead):
        return {}
    tower: Any = head.classification_head.conv
    loss = str(head.regression_head._loss_type)
    losses = {
        "l1": {"type": "L1Loss"},
        "smooth_l1": {"type": "SmoothL1Loss", "beta": 1.0},
        "giou": {"type": "GIoULoss", "eps": 1e-7},
        "diou": {"type": "DIoULoss", "eps": 1e-7},
        "ciou": {"type": "CIoULoss", "eps": 1e-7},
    }
    if loss not in losses:
        findings.problem(
            "head.regression_head", f"the loss {loss!r} is unknown; known are {', '.join(losses)}"
        )
    return {
        "type": "RetinaHead",
        "feat_channels": tower[0][0].out_channels if len(tower) else 256,
        "stacked_convs": len(tower),
        **(norm_of_block("head.classification_head.conv.0", tower[0], findings) if len(tower) else {}),
        "prior_generator": anchors_of("anchor_generator", model.anchor_generator, findings),
        "assigner": assigner_of(model.proposal_matcher),
        "bbox_coder": coder_of(model.box_coder),
        "loss_cls": {"type": "FocalLoss", "alpha": 0.25, "gamma": 2.0},
        "loss_bbox": losses.get(loss, {}),
        "postprocess": {
            "type": "NMSPostprocess",
            "score_thr": float(model.score_thresh),
            "nms_pre": int(model.topk_candidates),
            "min_bbox_size": None,
            "iou_threshold": float(model.nms_thresh),
            "max_per_img": int(model.detections_per_img),
        },
    }


# ---------------------------------------------------------------------------------------------- first stage


def rpn_head_of(rpn: Any, findings: Findings) -> Config:
    """The head that proposes regions."""
    if not findings.is_a("rpn.head", rpn.head, RPNHead):
        return {}

    def postprocess(mode: str) -> Config:
        return {
            "type": "LevelNMSPostprocess",
            "nms_pre": int(rpn._pre_nms_top_n[mode]),
            "min_bbox_size": float(rpn.min_size),
            "iou_threshold": float(rpn.nms_thresh),
            "max_per_img": int(rpn._post_nms_top_n[mode]),
            "score_thr": float(rpn.score_thresh),
        }

    return {
        "type": "RPNHead",
        "feat_channels": rpn.head.conv[-1][0].out_channels,
        "num_convs": len(rpn.head.conv),
        "prior_generator": anchors_of("rpn.anchor_generator", rpn.anchor_generator, findings),
        "assigner": assigner_of(rpn.proposal_matcher),
        "sampler": _sampler_of(rpn.fg_bg_sampler),
        "bbox_coder": coder_of(rpn.box_coder),
        "loss_cls": {"type": "CrossEntropyLoss", "use_sigmoid": True},
        "loss_bbox": _SMOOTH_L1,
        "train_postprocess": postprocess("training"),
        "postprocess": postprocess("testing"),
    }


# --------------------------------------------------------------------------------------------- second stage


def roi_head_of(heads: Any, findings: Findings) -> Config:
    """The head that looks into regions."""
    config: Config = {
        "type": "StandardRoIHead",
        "bbox_roi_extractor": _extractor_of("roi_heads.box_roi_pool", heads.box_roi_pool, findings),
        "bbox_head": _bbox_head_of(heads, findings),
        "assigner": assigner_of(heads.proposal_matcher),
        "sampler": _sampler_of(heads.fg_bg_sampler),
        "postprocess": {
            "type": "NMSPostprocess",
            "score_thr": float(heads.score_thresh),
            "nms_pre": None,
            "min_bbox_size": 1e-2,  # fixed in torchvision
            "iou_threshold": float(heads.nms_thresh),
            "max_per_img": int(heads.detections_per_img),
        },
    }
    if heads.has_mask():
        pool = heads.mask_roi_pool
        config["mask_roi_extractor"] = _extractor_of("roi_heads.mask_roi_pool", pool, findings)
        config["mask_head"] = _mask_head_of(heads, findings)
    if heads.has_keypoint():
        findings.problem("roi_heads.keypoint_head", "keypoints have no counterpart in detcore yet")
    return config


def _extractor_of(path: str, pool: Any, findings: Findings) -> Config:
    if not findings.is_a(path, pool, MultiScaleRoIAlign):
        return {}
    names = [str(name) for name in pool.featmap_names]
    if names != [str(i) for i in range(len(names))]:
        findings.problem(
            f"{path}.featmap_names", f"{names} are not the first levels of the pyramid, in order"
        )
    return {
        "type": "SingleRoIExtractor",
        "output_size": list(pool.output_size),
        "sampling_ratio": max(0, int(pool.sampling_ratio)),
        "aligned": False,
        "num_levels": len(names),
        # of the level with stride 4, where the pyramids of torchvision's two-stage models begin
        "finest_scale": float(pool.canonical_scale / 2 ** (pool.canonical_level - 2)),
    }


def _bbox_head_of(heads: Any, findings: Findings) -> Config:
    head, predictor = heads.box_head, heads.box_predictor
    if not findings.is_a("roi_heads.box_predictor", predictor, FastRCNNPredictor):
        return {}
    if predictor.bbox_pred.out_features != 4 * predictor.cls_score.out_features:
        findings.problem("roi_heads.box_predictor.bbox_pred", "has not one box for each class")
    shared = {
        "bbox_coder": coder_of(heads.box_coder),
        "loss_cls": {"type": "CrossEntropyLoss"},
        "loss_bbox": _SMOOTH_L1,
    }
    if isinstance(head, TwoMLPHead):
        return {"type": "Shared2FCBBoxHead", "fc_out_channels": head.fc6.out_features, **shared}
    if not findings.is_a("roi_heads.box_head", head, TwoMLPHead, FastRCNNConvFCHead):
        return {}
    blocks = [part for part in head if isinstance(part, nn.Sequential)]
    layers = [part for part in head if isinstance(part, nn.Linear)]
    widths = [block[0].out_channels for block in blocks]
    config: Config = {
        "type": "ConvFCBBoxHead",
        "num_shared_convs": len(blocks),
        "num_shared_fcs": len(layers),
        **shared,
    }
    if blocks:
        config["conv_out_channels"] = findings.same("roi_heads.box_head", widths, "the convolutions' width")
        config |= norm_of_block("roi_heads.box_head.0", blocks[0], findings)
    if layers:
        outs = [layer.out_features for layer in layers]
        config["fc_out_channels"] = findings.same("roi_heads.box_head", outs, "the layers' width")
    return config


def _mask_head_of(heads: Any, findings: Findings) -> Config:
    head, predictor = heads.mask_head, heads.mask_predictor
    known = findings.is_a("roi_heads.mask_head", head, MaskRCNNHeads)
    if not known or not findings.is_a("roi_heads.mask_predictor", predictor, MaskRCNNPredictor):
        return {}
    convs = [block[0] for block in head]
    if any(conv.dilation != (1, 1) for conv in convs):
        findings.problem("roi_heads.mask_head", "dilated convolutions have no counterpart in FCNMaskHead")
    widths = [*(conv.out_channels for conv in convs), predictor.conv5_mask.out_channels]
    findings.note(
        "roi_heads.mask_head",
        "masks are put into images by their exact boxes; unpad(whole_pixels=True) does it torchvision's way",
    )
    return {
        "type": "FCNMaskHead",
        "num_convs": len(convs),
        "conv_out_channels": findings.same("roi_heads.mask_head", widths, "the convolutions' width"),
        **(norm_of_block("roi_heads.mask_head.0", head[0], findings) if convs else {}),
    }
