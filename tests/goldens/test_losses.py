"""Losses against the reference's values and gradients, made of its arguments through the bridge."""

from __future__ import annotations

import pytest
import torch
from detcore_losses import reduce_loss
from detcore_mmdet import translate
from detcore_mmdet.parity.losses import DECISIONS, outcomes

from detcore.errors import ConfigError
from detcore.metrics import accuracy
from detcore.serialize import build
from detcore.testing.goldens import missing, read, task_cases

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())

#: No losses but parts of heads (``isr_p``, ``carl_loss``: test_pisa.py) or functions, tested below.
FUNCTIONS = ("weight_reduce_loss", "accuracy", "isr_p", "carl_loss")


def cases(*classes):
    return [pytest.param(case, id=case["id"]) for case in task_cases("losses", *classes)]


def component(case):
    loss = translate({"type": case["cls"], **case["args"]})
    ignored = (case.get("call") or {}).get("ignore_index")  # a parameter here
    return build(loss if ignored is None else {**loss, "ignore_index": ignored})


def close(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=5e-5, atol=1e-6)


@pytest.mark.parametrize("case", [p for p in cases() if p.values[0]["cls"] not in FUNCTIONS])
def test_value_and_gradient(case):
    loss = component(case)
    if case.get("raises") and case["id"] not in DECISIONS:
        with pytest.raises(ConfigError, match="avg_factor replaces the divisor of a mean"):
            list(outcomes(loss, case))
        return
    found = list(outcomes(loss, case))
    assert bool(found) != bool(case.get("raises"))
    for outcome in found:
        assert outcome.got.shape == outcome.want.shape, outcome.name
        close(outcome.got, outcome.want)


@pytest.mark.parametrize("case", cases("weight_reduce_loss"))
def test_reduction(case):
    inputs, outputs, call = read(case, "inputs"), read(case, "outputs"), case["call"]
    kwargs = {
        "weight": inputs.get("weight"),
        "avg_factor": call["avg_factor"],
        "reduction": call["reduction"],
    }
    if case.get("raises"):
        with pytest.raises(ConfigError, match="avg_factor replaces the divisor of a mean"):
            reduce_loss(inputs["loss"], **kwargs)
        return
    close(reduce_loss(inputs["loss"], **kwargs), torch.as_tensor(outputs["loss"]))


@pytest.mark.parametrize("case", cases("accuracy"))
def test_accuracy(case):
    inputs, want, call = read(case, "inputs"), read(case, "outputs")["acc"], case["call"]
    found = accuracy(inputs["pred"], inputs["target"], call["topk"], call.get("thresh"))
    found, want = (x if isinstance(x, (list, tuple)) else [x] for x in (found, want))
    for got, percent in zip(found, want, strict=True):
        close(100 * got, torch.as_tensor(percent).reshape(()))
