"""Made-up results of the steps between features and losses: predictions, assignments, proposals."""

from __future__ import annotations

import torch
from torch import Tensor

from detcore.structures import Assignment, Predictions, Priors, Proposals, Targets
from detcore.testing.data.random import SIZE, Size, scattered, seeded

#: The names that :func:`make_assignment` knows.
ASSIGNMENT_CASES = (
    "mixed", "no_positives", "no_negatives", "all_ignored", "few", "single", "none_in_one", "empty",
)  # fmt: skip
#: The names that :func:`make_proposals` knows.
PROPOSAL_CASES = ("typical", "none", "none_in_one", "degenerate", "padded")


def make_predictions(priors: Priors, *, batch: int = 2, num_classes: int = 3, seed: int = 0) -> Predictions:
    """What a network that has learned a little might predict: random logits, and boxes near the priors.

    Args:
        priors: N priors.
        batch: Images B.
        num_classes: K, the number of logits.
        seed: Another seed, other numbers.
    """
    generator = seeded("predictions", ("predictions",), seed)
    shape = (batch, len(priors))
    logits = torch.randn(*shape, num_classes, generator=generator) - 1
    boxes = priors.boxes.expand(*shape, 4)
    size = (boxes[..., 2:] - boxes[..., :2]).clamp(min=16)
    jitter = torch.rand(*shape, 4, generator=generator) * 0.5
    low = boxes[..., :2] - jitter[..., :2] * size
    high = boxes[..., 2:] + jitter[..., 2:] * size
    return Predictions(logits, torch.cat((low, high), -1))


def make_assignment(
    case: str = "mixed", *, batch: int = 2, num_priors: int = 200, num_objects: int = 5, seed: int = 0
) -> Assignment:
    """Assigned priors, as an assigner leaves them.

    The cases: ``mixed``: an eighth positive, an eighth ignored, the rest negative; ``no_positives``;
    ``no_negatives``; ``all_ignored``; ``few``: three positives in each image; ``single``: one prior, positive;
    ``none_in_one``: no positive in every second image; ``empty``: no prior.

    Args:
        case: One of :data:`ASSIGNMENT_CASES`.
        batch: Images B.
        num_priors: N, but for ``single`` and ``empty``.
        num_objects: M; positives answer for all of them.
        seed: Another seed, other numbers.

    Raises:
        ValueError: The case is unknown.
    """
    generator = seeded(case, ASSIGNMENT_CASES, seed)
    num_priors = {"single": 1, "empty": 0}.get(case, num_priors)
    shape = (batch, num_priors)
    draw = torch.rand(shape, generator=generator)
    positive, ignored = draw < 1 / 8, draw > 7 / 8
    none = torch.zeros_like(positive)
    if case in ("no_positives", "all_ignored"):
        positive = none
    elif case == "none_in_one":
        positive = positive & (torch.arange(batch) % 2 == 0)[:, None]
    elif case == "few":
        positive = draw.argsort(1).argsort(1) < 3
    elif case == "no_negatives":
        positive = ~ignored
    elif case == "single":
        positive, ignored = ~none, none
    ignored = ~none if case == "all_ignored" else ignored & ~positive
    state = torch.where(positive, 1, torch.where(ignored, -1, 0)).to(torch.int8)
    objects = torch.randint(num_objects, shape, generator=generator)
    quality = torch.rand(shape, generator=generator) * 0.5
    return Assignment(torch.where(positive, objects, 0), state, torch.where(positive, quality + 0.5, quality))


def make_proposals(
    case: str = "typical", *, targets: Targets | None = None, batch: int = 2, size: Size = SIZE, seed: int = 0
) -> Proposals:
    """Regions as a first stage leaves them, by descending score.

    The cases: ``typical``: 24 anywhere, and one near each object; ``none``: every row is padding;
    ``none_in_one``: that in every second image; ``degenerate``: some without width, height or both;
    ``padded``: eight more rows that are padding and hold zeros.

    Args:
        case: One of :data:`PROPOSAL_CASES`.
        targets: Objects that some of the regions are near to.
        batch: Images B.
        size: (h, w) of the images, in pixels.
        seed: Another seed, other numbers.

    Raises:
        ValueError: The case is unknown.
    """
    generator = seeded("typical" if case == "padded" else case, PROPOSAL_CASES, seed)
    boxes = scattered(batch * 24, size, generator).reshape(batch, 24, 4)
    if targets is not None:
        shift = torch.rand(*targets.boxes.shape, generator=generator) * 3
        near = torch.where(targets.matchable[..., None], targets.boxes + shift, boxes[:, :1])
        limit = torch.tensor([size[1], size[0], size[1], size[0]], dtype=boxes.dtype)
        boxes = torch.cat((boxes, near.clamp(min=0).minimum(limit)), 1)
    if case == "degenerate":
        boxes[:, 0:6, 2] = boxes[:, 0:6, 0]
        boxes[:, 3:9, 3] = boxes[:, 3:9, 1]
    scores = torch.rand(boxes.shape[:2], generator=generator).sort(1, descending=True).values
    valid = torch.ones_like(scores, dtype=torch.bool)
    if case in ("none", "none_in_one"):
        valid = valid & (torch.arange(batch) % 2 == 0)[:, None] & (case == "none_in_one")
    if case == "padded":
        boxes, scores, valid = (_extended(t, 8) for t in (boxes, scores, valid))
    return Proposals(torch.where(valid[..., None], boxes, 0), torch.where(valid, scores, 0), valid)


def _extended(table: Tensor, rows: int) -> Tensor:
    return torch.cat((table, table.new_zeros((len(table), rows, *table.shape[2:]))), 1)
