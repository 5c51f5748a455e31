"""Checks of mask heads."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from detcore.interfaces import MaskHead
from detcore.testing.checking import Trial, check, probe
from detcore.testing.checks.bbox_heads import region_features
from detcore.testing.modules import check_gradients, compiled, enliven
from detcore.testing.subject import given

ROWS = {"usual": 5, "one": 1, "no_rows": 0}


def _truth(trial: Trial, head: Any, logits: Tensor) -> tuple[Tensor, Tensor]:
    """Labels [P] and binary masks [P, H, W]."""
    rows = len(logits)
    labels = torch.arange(rows) % given(head, "num_classes")
    masks = torch.rand(rows, *logits.shape[-2:], generator=trial.generator()) < 0.5
    return labels, masks.float()


def _loss(trial: Trial, head: Any, features: Tensor) -> Any:
    logits = head(features)
    return head.loss(logits, *_truth(trial, head, logits))


@probe(MaskHead)
def mask_head_once(head: Any, trial: Trial) -> Any:
    """Logits and losses of ordinary regions."""
    enliven(head, trial.seed).eval()
    features = region_features(trial, head, ROWS["usual"])
    return head(features), dict(_loss(trial, head, features))


@check(MaskHead, cases=ROWS)
def mask_head_output_is_well_formed(trial: Trial) -> None:
    """Logits are [P, A, H, W] with A = K or 1, and the masks of a class [P, H, W] in 0..1."""
    head = enliven(trial.component(), trial.seed).eval()
    rows, classes = ROWS[trial.case], given(head, "num_classes")
    logits = head(region_features(trial, head, rows))
    trial.require(logits.dim() == 4 and len(logits) == rows, f"logits have shape {list(logits.shape)}")
    trial.require(logits.shape[1] in (1, classes), f"there are {logits.shape[1]} masks, {classes} classes")
    trial.finite(logits, "a logit")
    masks = head.masks(logits, torch.arange(rows) % classes)
    shape = (rows, *logits.shape[-2:])
    trial.require(masks.shape == shape, f"masks have shape {list(masks.shape)}, not {list(shape)}")
    trial.require((masks >= 0) & (masks <= 1), "a mask is no probability", masks)


@check(MaskHead, cases=ROWS)
def mask_head_parameters_get_gradients(trial: Trial) -> None:
    """Every trainable parameter gets a finite gradient from its loss, without rows too."""
    head = enliven(trial.component(), trial.seed).train()
    features = region_features(trial, head, ROWS[trial.case])
    check_gradients(trial, head, lambda: _loss(trial, head, features).total)


@check(MaskHead, compares=True)
def mask_head_rows_are_independent(trial: Trial) -> None:
    """In evaluation mode a row's mask does not depend on the other rows."""
    head = enliven(trial.component(), trial.seed).eval()
    features = region_features(trial, head, ROWS["usual"])
    trial.same(head(features[1:3]), head(features)[1:3], "two rows alone", rtol=1e-3, atol=1e-4)


@check(MaskHead)
def mask_head_takes_autocast(trial: Trial) -> None:
    """Under autocast to bfloat16 every trainable parameter gets a finite gradient."""
    head = enliven(trial.component(), trial.seed).train()
    features = region_features(trial, head, ROWS["usual"])

    def run() -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            total: Tensor = _loss(trial, head, features).total
        return total.float()

    check_gradients(trial, head, run)


@check(MaskHead, slow=True, compares=True)
def mask_head_compiles(trial: Trial) -> None:
    """``torch.compile(fullgraph=True)`` takes its network and gives the same."""
    head = enliven(trial.component(), trial.seed).eval()
    features = region_features(trial, head, ROWS["usual"])
    got = compiled(head)(features)
    trial.same(got, head(features), "the compiled output", rtol=1e-3, atol=1e-4)
