"""Losses against their goldens: how each of the reference's is called, and what compares with what it gives."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from detcore.testing import goldens

Case = Mapping[str, Any]

#: Cases in which the reference raises or gives NaN, and this project gives a number, with the decision.
DECISIONS = {
    "losses.ciou.identical": "0, where the reference gives NaN for equal boxes",
    "losses.dfl.at_max": "a target at the end belongs to the last bin; the reference raises",
    "losses.seesaw.single#none": "background rows cost no class; the reference raises for both terms together",
    **{
        f"losses.{name}#sum": "the sum of the harmonised losses; the reference raises for its own divisor"
        for name in (
            *(
                f"ghmc.{set_}.{target}"
                for set_ in ("std", "b30", "m")
                for target in ("label", "onehot", "zero")
            ),
            *(f"ghmr.{set_}.{weight}" for set_ in ("std", "mu", "m") for weight in ("w", "zero")),
        )
    },
}


class Outcome(NamedTuple):
    """One thing to compare.

    Args:
        section: "loss" or "gradient".
        name: Of the reference's record.
        got: Ours.
        want: The reference's.
    """

    section: str
    name: str
    got: Tensor
    want: Tensor


def outcomes(loss: Any, case: Case) -> Iterator[Outcome]:
    """Calls a loss as the reference was called.

    Args:
        loss: The loss, made of the case's arguments.
        case: A golden of a class of losses.

    Returns:
        What it gives, beside the reference's values; nothing where the reference raises.
    """
    inputs, outputs = goldens.read(case, "inputs"), goldens.read(case, "outputs")
    call: Callable[..., Iterator[Outcome]] = _CALLS.get(case["cls"], _usual)
    return call(loss, case, inputs, outputs)


def _keywords(case: Case) -> dict[str, Any]:
    call = case.get("call") or {}
    return {"avg_factor": call.get("avg_factor"), "reduction": call.get("reduction_override")}


def _compared(value: Tensor, leaf: Tensor, outputs: Mapping[str, Any]) -> Iterator[Outcome]:
    value.sum().backward()  # type: ignore[no-untyped-call]
    if "loss" in outputs:
        yield Outcome("loss", "loss", value.detach(), torch.as_tensor(outputs["loss"]))
        yield Outcome("gradient", "grad_pred", _gradient(leaf), outputs["grad_pred"])


def _gradient(leaf: Tensor) -> Tensor:
    return torch.zeros_like(leaf) if leaf.grad is None else leaf.grad


def _usual(loss: Any, case: Case, inputs: Any, outputs: Any) -> Iterator[Outcome]:
    leaf = inputs["pred"].clone().requires_grad_()
    pred = leaf
    target = next(inputs[name] for name in ("target", "label", "soft_label") if name in inputs)
    outputs = dict(outputs)
    if case["args"].get("use_mask"):  # the mask head picks the channel of each mask's class
        pred = pred[torch.arange(len(pred)), inputs["label"]]
        outputs["loss"] = outputs["loss"].squeeze(0)
    if case["id"].startswith("losses.ce.seg."):  # channels are last here
        pred = pred.movedim(1, -1)
    if case["id"] == "losses.ciou.identical":
        outputs = {name: value.nan_to_num() for name, value in outputs.items()}
    keywords = {**_keywords(case), "weight": inputs.get("weight")}
    keywords |= {name: inputs[name] for name in ("pos_inds", "pos_labels") if name in inputs}
    if isinstance(target, list):  # labels and qualities
        target, keywords["quality"] = target
    return _compared(loss(pred, target, **keywords), leaf, outputs)


def _harmonised(loss: Any, case: Case, inputs: Any, outputs: Any) -> Iterator[Outcome]:
    steps = inputs.get("preds", [inputs.get("pred")])
    for step, pred in enumerate(steps):
        leaf = pred.clone().requires_grad_()
        value = loss(leaf, inputs["target"], weight=inputs["label_weight"], **_keywords(case))
        if "preds" not in inputs:
            yield from _compared(value, leaf, outputs)
            return
        yield from _compared(value, leaf, {name: outputs[name][step] for name in ("loss", "grad_pred")})
        yield Outcome("loss", f"acc_sum {step}", loss.acc_sum.clone(), outputs["acc_sum"][step])


def _embeddings(loss: Any, case: Case, inputs: Any, outputs: Any) -> Iterator[Outcome]:
    leaves = [inputs[name].clone().requires_grad_() for name in ("pred", "target")]
    matches = case["call"]["match"]
    most = max(map(len, matches))
    valid = torch.tensor([[k < len(image) for k in range(most)] for image in matches])
    corners = []
    for side, leaf in enumerate(leaves):
        places = [[image[k][side] if k < len(image) else [0, 0] for k in range(most)] for image in matches]
        y, x = torch.tensor(places).unbind(-1)
        corners.append(leaf[torch.arange(len(matches))[:, None], 0, y, x])
    pull, push = loss.terms(*corners, valid=valid)
    (pull + push).backward()
    yield Outcome("loss", "pull", pull.detach(), torch.as_tensor(outputs["pull"]))
    yield Outcome("loss", "push", push.detach(), torch.as_tensor(outputs["push"]))
    for name, leaf in zip(("pred", "target"), leaves, strict=True):
        yield Outcome("gradient", f"grad_{name}", _gradient(leaf), outputs[f"grad_{name}"])


def _seesaw(loss: Any, case: Case, inputs: Any, outputs: Any) -> Iterator[Outcome]:
    if "scores" in outputs:  # the reference adds the probability of background
        got = loss.scores(inputs["pred"])
        background = inputs["pred"][:, -2:].softmax(-1)[:, 1:]
        yield Outcome("loss", "scores", torch.cat((got, background), -1), outputs["scores"])
    elif "preds" in inputs:
        for step, (pred, labels) in enumerate(zip(inputs["preds"], inputs["labels"], strict=True)):
            terms = torch.stack(loss.terms(pred.requires_grad_(), labels))
            yield Outcome("loss", f"terms {step}", terms.detach(), outputs["obj_cls"][step])
            yield Outcome(
                "loss", f"cum_samples {step}", loss.cum_samples.clone(), outputs["cum_samples"][step]
            )
    else:
        leaf, labels = inputs["pred"].clone().requires_grad_(), inputs["label"]
        keywords = {**_keywords(case), "weight": inputs.get("label_weights")}
        if "loss_cls_classes" not in outputs:
            yield from _compared(loss(leaf, labels, **keywords), leaf, outputs)
            return
        objectness, classes = loss.terms(leaf, labels, **keywords)
        (objectness.sum() + classes.sum()).backward()
        if classes.dim():  # the reference leaves out the rows of background
            classes = classes[labels < loss.num_classes]
        for name, got in (("objectness", objectness), ("classes", classes)):
            want = torch.as_tensor(outputs[f"loss_cls_{name}"])
            yield Outcome("loss", name, got.detach(), want)
        yield Outcome("gradient", "grad_pred", _gradient(leaf), outputs["grad_pred"])


_CALLS: dict[str, Callable[..., Iterator[Outcome]]] = {
    "AssociativeEmbeddingLoss": _embeddings,
    "GHMC": _harmonised,
    "GHMR": _harmonised,
    "SeesawLoss": _seesaw,
}
