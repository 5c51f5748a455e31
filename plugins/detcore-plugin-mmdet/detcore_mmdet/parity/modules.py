"""Backbones, necks and other modules alone, against their goldens: outputs, gradients of a fixed loss."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from detcore.interfaces import BBoxHead, RoIExtractor
from detcore.serialize import build
from detcore.testing import goldens
from detcore.weights import without_weights
from detcore_mmdet.bridge import load, match_keys
from detcore_mmdet.parity.detectors import GRADIENT_RTOL, LOSS_RTOL, OUTPUT_ATOL, OUTPUT_RTOL, Arrays
from detcore_mmdet.parity.result import Result
from detcore_mmdet.translation import translation_of


def compare_module(name: str, seed: int = 0) -> Result:
    """The whole comparison of one module golden.

    Raises:
        TranslationError: The module does not exist here yet.
    """
    meta, data = goldens.model(name, seed)
    translation, result = translation_of(meta["config"]), Result()
    with without_weights():
        module = build({**translation.config, **_of_call(meta)}).eval()
    weights = goldens.weights(meta)
    keys = match_keys(module, weights, translation.report)
    load(module, weights, keys, name)
    inputs = [torch.from_numpy(array).requires_grad_() for array in goldens.rules().inputs(meta)]
    outputs = _outputs(module, meta, inputs)
    for key, output in outputs.items():
        if list(output.shape) != meta["tensors"].get(key):
            wanted = meta["tensors"].get(key)
            result.problems.append(f"{key}: shape {list(output.shape)}, the reference has {wanted}")
            continue
        got = output.reshape(-1)[torch.from_numpy(data[f"{key}#idx"])]
        atol = OUTPUT_ATOL * max(float(data[f"{key}#stat"][1]), 1e-6)
        result.compare("forward", key, got, data[f"{key}#val"], rtol=OUTPUT_RTOL, atol=atol)
    if "gradcheck/L" in data:  # the largest modules were recorded without
        _compare_gradients(module, keys.mapped, list(outputs.values()), inputs, meta["inputs"], data, result)
    return result


def _of_call(meta: Mapping[str, Any]) -> dict[str, Any]:
    """What the reference takes per call, and a component here as a parameter."""
    factor = re.search(r"roi_scale_factor=([\d.]+)", meta.get("call", ""))
    return {"roi_scale_factor": float(factor[1])} if factor else {}


def _outputs(module: Any, meta: Mapping[str, Any], inputs: Sequence[Tensor]) -> dict[str, Tensor]:
    """The module's outputs, by the names that the golden has for them."""
    first = inputs[0]
    if isinstance(module, RoIExtractor):
        truths = [goldens.rules().random_gt(meta["seed"], 6, 128, 160, 1, 1, 1, f"roi{i}") for i in range(2)]
        boxes = torch.cat([torch.from_numpy(truth["boxes"]) for truth in truths])
        return {"out": module(tuple(inputs), boxes, torch.arange(2).repeat_interleave(6))}
    if isinstance(module, BBoxHead):
        if first.dim() == 2:  # the reference's plainest head does not flatten its input
            side = meta["config"]["roi_feat_size"]
            first = first.reshape(len(first), -1, side, side)
        return {f"out/{i}": output.flatten(1) for i, output in enumerate(module(first))}
    found = module(first if len(inputs) == 1 else tuple(inputs))
    return {"out": found} if isinstance(found, Tensor) else {f"out/{i}": o for i, o in enumerate(found)}


def _compare_gradients(
    module: Any,
    names: dict[str, str],
    outputs: Sequence[Tensor],
    inputs: Sequence[Tensor],
    described: Sequence[dict[str, Any]],
    data: Arrays,
    result: Result,
) -> None:
    loss = torch.stack([output.square().mean() for output in outputs]).sum()
    loss.backward()  # type: ignore[no-untyped-call]
    result.compare("loss", "gradcheck/L", loss, data["gradcheck/L"].reshape(()), rtol=LOSS_RTOL)
    gradients = {f"gradin/{entry['name']}": t.grad for entry, t in zip(described, inputs, strict=True)}
    parameters = dict(module.named_parameters())
    for key in [k.removesuffix("#idx") for k in data if k.startswith("grad/") and k.endswith("#idx")]:
        gradients[key] = parameters[names[key.removeprefix("grad/")]].grad
    # a bias before a softmax has no gradient but rounding, which is small beside all others
    rounding = 1e-6 * max(float(g.abs().max()) for g in gradients.values() if g is not None)
    for key, gradient in gradients.items():
        if f"{key}#idx" not in data:
            continue
        wanted = data[f"{key}#val"]
        if gradient is None:
            result.compare("gradient", key, torch.zeros(len(wanted)), wanted, rtol=GRADIENT_RTOL, atol=1e-12)
            continue
        largest = max(float(gradient.abs().max()), rounding / GRADIENT_RTOL)
        got = gradient.reshape(-1)[torch.from_numpy(data[f"{key}#idx"])]
        result.compare(
            "gradient",
            key,
            got,
            wanted,
            rtol=GRADIENT_RTOL,
            atol=GRADIENT_RTOL * largest,
            scale=largest or 1.0,
        )
