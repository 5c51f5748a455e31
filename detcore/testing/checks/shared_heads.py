"""Checks of networks between region features and heads."""

from __future__ import annotations

from typing import Any

import torch

from detcore.interfaces import SharedHead
from detcore.testing.checking import Trial, check, probe
from detcore.testing.checks.bbox_heads import region_features
from detcore.testing.modules import check_gradients, total_of

ROWS = {"usual": 4, "one": 1, "no_rows": 0}


@probe(SharedHead)
def shared_head_once(head: Any, trial: Trial) -> Any:
    """Features of ordinary regions."""
    with torch.no_grad():
        return head.eval()(region_features(trial, head, ROWS["usual"]))


@check(SharedHead, cases=ROWS)
def shared_head_sizes_are_true(trial: Trial) -> None:
    """Its result has ``out_channels`` channels and ``output_size`` cells, and is finite."""
    head = trial.component().eval()
    rows = ROWS[trial.case]
    with torch.no_grad():
        features = head(region_features(trial, head, rows))
    shape = (rows, head.out_channels, *head.output_size)
    trial.require(features.shape == shape, f"it has shape {list(features.shape)}, not {list(shape)}")
    trial.finite(features, "a feature")


@check(SharedHead)
def shared_head_parameters_get_gradients(trial: Trial) -> None:
    """In training mode every trainable parameter gets a finite gradient."""
    head = trial.component().train()
    features = region_features(trial, head, ROWS["usual"])
    check_gradients(trial, head, lambda: total_of(head(features)))


@check(SharedHead, compares=True)
def shared_head_rows_are_independent(trial: Trial) -> None:
    """In evaluation mode a row's features do not depend on the other rows."""
    head = trial.component().eval()
    features = region_features(trial, head, ROWS["usual"])
    with torch.no_grad():
        every, some = head(features), head(features[1:3])
    trial.same(some, every[1:3], "two rows alone", rtol=1e-3, atol=1e-3)
