"""torchvision's names of weights -> detcore's, and what happens to the rows that belong to classes."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from torch import Tensor

from detcore.weights import RenameRules

#: Layouts of files from before torchvision 0.14, whose convolutions had no index of their own in a block.
_OLD: RenameRules = (
    (r"^(backbone\.fpn\.(?:inner|layer)_blocks\.\d+)\.(weight|bias)$", r"\1.0.\2"),
    (r"^(rpn\.head\.conv)\.(weight|bias)$", r"\1.0.0.\2"),
)
_BLOCK = r"\.(\d+)\.0\."
_NORM = r"\.(\d+)\.1\."
_RULES: RenameRules = (
    (r"^backbone\.body\.", "backbone."),
    (rf"^backbone\.fpn\.inner_blocks{_BLOCK}", r"neck.lateral_convs.\1.conv."),
    (rf"^backbone\.fpn\.inner_blocks{_NORM}", r"neck.lateral_convs.\1.norm."),
    (rf"^backbone\.fpn\.layer_blocks{_BLOCK}", r"neck.fpn_convs.\1.conv."),
    (rf"^backbone\.fpn\.layer_blocks{_NORM}", r"neck.fpn_convs.\1.norm."),
    (rf"^head\.classification_head\.conv{_BLOCK}", r"head.cls_convs.\1.conv."),
    (rf"^head\.classification_head\.conv{_NORM}", r"head.cls_convs.\1.norm."),
    (rf"^head\.regression_head\.conv{_BLOCK}", r"head.reg_convs.\1.conv."),
    (rf"^head\.regression_head\.conv{_NORM}", r"head.reg_convs.\1.norm."),
    (r"^head\.classification_head\.cls_logits\.", "head.retina_cls."),
    (r"^head\.regression_head\.bbox_reg\.", "head.retina_reg."),
    (rf"^rpn\.head\.conv{_BLOCK}", r"rpn_head.rpn_conv.\1.conv."),
    (r"^rpn\.head\.cls_logits\.", "rpn_head.rpn_cls."),
    (r"^rpn\.head\.bbox_pred\.", "rpn_head.rpn_reg."),
    (r"^roi_heads\.box_head\.fc6\.", "roi_head.bbox_head.shared_fcs.0."),
    (r"^roi_heads\.box_head\.fc7\.", "roi_head.bbox_head.shared_fcs.1."),
    (rf"^roi_heads\.box_head{_BLOCK}", r"roi_head.bbox_head.shared_convs.\1.conv."),
    (rf"^roi_heads\.box_head{_NORM}", r"roi_head.bbox_head.shared_convs.\1.norm."),
    (r"^roi_heads\.box_predictor\.cls_score\.", "roi_head.bbox_head.fc_cls."),
    (r"^roi_heads\.box_predictor\.bbox_pred\.", "roi_head.bbox_head.fc_reg."),
    (rf"^roi_heads\.mask_head{_BLOCK}", r"roi_head.mask_head.convs.\1.conv."),
    (rf"^roi_heads\.mask_head{_NORM}", r"roi_head.mask_head.convs.\1.norm."),
    (r"^roi_heads\.mask_predictor\.conv5_mask\.", "roi_head.mask_head.upsample."),
    (r"^roi_heads\.mask_predictor\.mask_fcn_logits\.", "roi_head.mask_head.conv_logits."),
)
#: Fully connected layers behind convolutions, by their place in the sequence.
_FC = re.compile(r"^roi_heads\.box_head\.(\d+)\.(weight|bias)$")
_COARSE = re.compile(r"^backbone\.fpn\.extra_blocks\.p([67])\.")
_OLD_TOWER = re.compile(r"^(head\.(?:classification|regression)_head\.conv)\.(\d+)\.(weight|bias)$")
_OLD_MASK = re.compile(r"^(roi_heads\.mask_head)\.mask_fcn(\d+)\.(weight|bias)$")


def modern(name: str) -> str:
    """A name in the layout of torchvision 0.14 and later."""
    for pattern, replacement in _OLD:
        name = re.sub(pattern, replacement, name)
    name = _OLD_TOWER.sub(lambda m: f"{m[1]}.{int(m[2]) // 2}.0.{m[3]}", name)
    return _OLD_MASK.sub(lambda m: f"{m[1]}.{int(m[2]) - 1}.0.{m[3]}", name)


def detcore_names(names: Sequence[str]) -> dict[str, str]:
    """Torchvision's names, in any layout -> the names in a detector of detcore.

    Names of parts that have no counterpart keep torchvision's.
    """
    present = {name: modern(name) for name in names}
    levels = len({n for n in present.values() if re.match(r"backbone\.fpn\.layer_blocks\.\d+\.0\.weight", n)})
    fully = sorted({int(found[1]) for n in present.values() if (found := _FC.match(n))})
    single = not any(n.startswith("rpn.head.conv.1.") for n in present.values())
    result = {}
    for old, name in present.items():
        if single:  # one convolution is no tower here
            name = re.sub(r"^rpn\.head\.conv\.0\.0\.", "rpn_head.rpn_conv.", name)
        name = _COARSE.sub(lambda m: f"neck.fpn_convs.{levels + int(m[1]) - 6}.conv.", name)
        name = _FC.sub(lambda m: f"roi_head.bbox_head.shared_fcs.{fully.index(int(m[1]))}.{m[2]}", name)
        for pattern, replacement in _RULES:
            name = re.sub(pattern, replacement, name)
        result[old] = name
    return result


# ---------------------------------------------------------------------------------------------------- classes


class Conversion(NamedTuple):
    """What happens to the rows of a weight.

    Args:
        describe: In words.
        apply: The new rows of the weight, for the labels that stay and the number of anchors in a cell.
    """

    describe: str
    apply: Callable[[Tensor, list[int], int], Tensor]


def _softmax(tensor: Tensor, labels: list[int], anchors: int) -> Tensor:
    return tensor[[*labels, 0]]


def _boxes(tensor: Tensor, labels: list[int], anchors: int) -> Tensor:
    return tensor.reshape(-1, 4, *tensor.shape[1:])[labels].flatten(0, 1)


def _masks(tensor: Tensor, labels: list[int], anchors: int) -> Tensor:
    return tensor[labels]


def _per_anchor(tensor: Tensor, labels: list[int], anchors: int) -> Tensor:
    return tensor.reshape(anchors, -1, *tensor.shape[1:])[:, labels].flatten(0, 1)


_CONVERSIONS = {
    "roi_heads.box_predictor.cls_score": Conversion("background moved from first to last", _softmax),
    "roi_heads.box_predictor.bbox_pred": Conversion("box of the background left out", _boxes),
    "roi_heads.mask_predictor.mask_fcn_logits": Conversion("mask of the background left out", _masks),
    "head.classification_head.cls_logits": Conversion("background left out, at each anchor", _per_anchor),
}
#: Weights by whose rows the outputs are counted.
_CODES = "head.regression_head.bbox_reg.weight"
_ONE_STAGE = "head.classification_head.cls_logits.weight"
_TWO_STAGE = "roi_heads.box_predictor.cls_score.weight"


def conversion_of(name: str) -> Conversion | None:
    """What happens to the rows of a weight, by torchvision's name."""
    return _CONVERSIONS.get(name.rpartition(".")[0])


def anchors_per_cell(weights: Mapping[str, Tensor]) -> int:
    """The number of anchors in a cell of a one-stage model; 1 where the weights are of no such model."""
    return weights[_CODES].shape[0] // 4 if _CODES in weights else 1


def outputs_of(weights: Mapping[str, Tensor]) -> int | None:
    """Torchvision's ``num_classes``, the background among them; None where the weights do not tell."""
    if _TWO_STAGE in weights:
        return int(weights[_TWO_STAGE].shape[0])
    if _ONE_STAGE in weights and _CODES in weights:
        return int(weights[_ONE_STAGE].shape[0]) // anchors_per_cell(weights)
    return None


def converted(weights: Mapping[str, Tensor], labels: Sequence[int]) -> dict[str, Tensor]:
    """The weights by detcore's names, with the rows of the classes that stay.

    Args:
        weights: By torchvision's names.
        labels: torchvision's labels of the classes that stay, in order.
    """
    anchors = anchors_per_cell(weights)
    result = {}
    for old, new in detcore_names(list(weights)).items():
        conversion = conversion_of(old)
        tensor = weights[old]
        result[new] = tensor if conversion is None else conversion.apply(tensor, list(labels), anchors)
    return result
