"""Checks of box heads."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from detcore.interfaces import BBoxHead
from detcore.interfaces.bbox_head import BBoxOutput, RoISample
from detcore.structures import Losses
from detcore.testing.checking import Trial, check, probe
from detcore.testing.compare import tensors
from detcore.testing.modules import check_gradients, compiled, enliven
from detcore.testing.subject import given

ROWS = {"usual": 10, "no_positives": 10, "padding": 10, "one": 1, "no_rows": 0}


def region_features(trial: Trial, head: Any, rows: int) -> Tensor:
    """Random features [P, F, h, w] of the size that the head was built for."""
    trial.note(f"random features of {rows} regions, seed={trial.seed}")
    height, width = given(head, "roi_feat_size")
    return torch.randn(rows, given(head, "in_channels"), height, width, generator=trial.generator())


def _sample(trial: Trial, head: Any, case: str) -> RoISample:
    """Regions of two images, a third of them positive."""
    rows, classes = ROWS[case], given(head, "num_classes")
    generator = trial.generator()
    corner = torch.rand(rows, 2, generator=generator) * 40
    boxes = torch.cat((corner, corner + 8 + torch.rand(rows, 2, generator=generator) * 20), 1)
    number = torch.arange(rows)
    real = torch.full((rows,), case != "padding")
    positive = (number % 3 == 0) & real & (case != "no_positives")
    shifted = boxes + torch.rand(rows, 4, generator=generator) * 2
    trial.note(f"{rows} regions, {case}")
    return RoISample(
        boxes=boxes,
        image=number % 2,
        real=real,
        added=torch.zeros(rows, dtype=torch.bool),
        positive=positive,
        labels=torch.where(positive, number % classes, classes),
        weight=real.float(),
        gt_index=torch.zeros(rows, dtype=torch.int64),
        gt_boxes=torch.where(positive[:, None], shifted, boxes),
    )


@probe(BBoxHead)
def box_head_once(head: Any, trial: Trial) -> Any:
    """Output and losses of ordinary regions."""
    enliven(head, trial.seed).eval()
    output = head(region_features(trial, head, ROWS["usual"]))
    return output, dict(head.loss(output, _sample(trial, head, "usual")))


@check(BBoxHead, cases=("usual", "one", "no_rows"))
def bbox_head_output_is_well_formed(trial: Trial) -> None:
    """Logits are [P, C], codes [P, A, D] with A = K or 1, and scores [P, K] in 0..1."""
    head = enliven(trial.component(), trial.seed).eval()
    rows, classes = ROWS[trial.case], given(head, "num_classes")
    output = head(region_features(trial, head, rows))
    trial.require(isinstance(output, BBoxOutput), f"the output is a {type(output).__name__}")
    trial.require(output.logits.dim() == 2 and len(output.logits) == rows, "logits are not [P, C]")
    trial.require(output.codes.dim() == 3 and len(output.codes) == rows, "codes are not [P, A, D]")
    boxes = output.codes.shape[1]
    trial.require(boxes in (1, classes), f"codes are for {boxes} classes, there are {classes}")
    trial.finite(output, "the output")
    scores = head.scores(output)
    shape = (rows, classes)
    trial.require(scores.shape == shape, f"scores have shape {list(scores.shape)}, not {list(shape)}")
    trial.require((scores >= 0) & (scores <= 1), "a score is not in 0..1", scores)


@check(BBoxHead, cases=ROWS)
def bbox_head_parameters_get_gradients(trial: Trial) -> None:
    """Every trainable parameter gets a finite gradient from its loss, without positives and without rows too."""
    head = enliven(trial.component(), trial.seed).train()
    sample = _sample(trial, head, trial.case)
    features = region_features(trial, head, len(sample.boxes))
    check_gradients(trial, head, lambda: head.loss(head(features), sample).total)


@check(BBoxHead)
def bbox_head_losses_are_scalars(trial: Trial) -> None:
    """Its loss is a Losses of scalars."""
    head = enliven(trial.component(), trial.seed).train()
    losses = head.loss(head(region_features(trial, head, ROWS["usual"])), _sample(trial, head, "usual"))
    trial.require(isinstance(losses, Losses) and len(losses) > 0, f"it is a {type(losses).__name__}")
    for name, term in losses.items():
        trial.require(term.numel() == 1, f"{name} has shape {list(term.shape)}")


@check(BBoxHead, compares=True)
def bbox_head_ignores_padding(trial: Trial) -> None:
    """Rows of weight 0 do not change the loss, whatever they hold."""
    head = enliven(trial.component(), trial.seed).eval()
    sample = _sample(trial, head, "usual")
    features = region_features(trial, head, len(sample.boxes))
    wanted = head.loss(head(features), sample)
    extra = _sample(trial, head, "padding")
    both = {name: torch.cat((getattr(sample, name), getattr(extra, name))) for name in vars(sample)}
    got = head.loss(head(torch.cat((features, 10 * features))), RoISample(**both))
    trial.same(dict(got), dict(wanted), "with padded rows, the loss", rtol=1e-3)


@check(BBoxHead, compares=True)
def bbox_head_rows_are_independent(trial: Trial) -> None:
    """In evaluation mode a row's prediction does not depend on the other rows."""
    head = enliven(trial.component(), trial.seed).eval()
    features = region_features(trial, head, ROWS["usual"])
    every, some = head(features), head(features[3:5])
    trial.same(some.logits, every.logits[3:5], "logits of two rows alone", rtol=1e-3, atol=1e-4)
    trial.same(some.codes, every.codes[3:5], "codes of two rows alone", rtol=1e-3, atol=1e-4)


@check(BBoxHead, cases=("usual", "no_rows"))
def bbox_head_class_losses_are_per_row(trial: Trial) -> None:
    """``class_losses`` gives a finite number for each row."""
    head = enliven(trial.component(), trial.seed).eval()
    sample = _sample(trial, head, trial.case)
    rows = len(sample.boxes)
    losses = head.class_losses(head(region_features(trial, head, rows)), sample.labels)
    trial.require(losses.shape == (rows,), f"it has shape {list(losses.shape)}, not [{rows}]")
    trial.finite(losses, "a loss")


@check(BBoxHead, cases=("usual", "no_rows"))
def bbox_head_decodes(trial: Trial) -> None:
    """``decode`` gives finite boxes, inside of the image where its size is given."""
    head = enliven(trial.component(), trial.seed).eval()
    sample = _sample(trial, head, trial.case)
    rows = len(sample.boxes)
    codes = head(region_features(trial, head, rows)).codes[:, 0]
    boxes = head.decode(codes, sample.boxes)
    trial.require(boxes.shape == (rows, 4), f"boxes have shape {list(boxes.shape)}")
    trial.finite(boxes, "a box")
    sizes = torch.tensor([[30, 40]]).expand(rows, 2)
    clipped = head.decode(codes, sample.boxes, sizes)
    limit = sizes.flip(-1).repeat(1, 2)
    trial.require((clipped >= 0) & (clipped <= limit), "a box leaves its image", clipped)


@check(BBoxHead)
def bbox_head_takes_autocast(trial: Trial) -> None:
    """Under autocast to bfloat16 every trainable parameter gets a finite gradient."""
    head = enliven(trial.component(), trial.seed).train()
    sample = _sample(trial, head, "usual")
    features = region_features(trial, head, len(sample.boxes))

    def run() -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            total: Tensor = head.loss(head(features), sample).total
        return total.float()

    check_gradients(trial, head, run)


@check(BBoxHead)
def bbox_head_leaves_its_arguments(trial: Trial) -> None:
    """It writes neither to the features nor to the sample."""
    head = enliven(trial.component(), trial.seed).train()
    sample = _sample(trial, head, "usual")
    features = region_features(trial, head, len(sample.boxes))
    with trial.unchanged("an argument", features, tensors(sample)):
        head.loss(head(features), sample)


@check(BBoxHead, slow=True, compares=True)
def bbox_head_compiles(trial: Trial) -> None:
    """``torch.compile(fullgraph=True)`` takes its network and gives the same."""
    head = enliven(trial.component(), trial.seed).eval()
    features = region_features(trial, head, ROWS["usual"])
    got = compiled(head)(features)
    trial.same(got, head(features), "the compiled output", rtol=1e-3, atol=1e-4)
