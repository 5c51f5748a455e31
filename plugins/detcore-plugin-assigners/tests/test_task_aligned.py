"""TaskAlignedAssigner, against a plain loop over images and ground truths."""

import pytest
import torch
from detcore_assigners import TaskAlignedAssigner

from detcore.boxes import pairwise_overlap
from detcore.errors import ConfigError
from detcore.structures import Predictions, Priors, Targets

VARIANTS = {
    "default": {},
    "topk6": {"topk": 6},
    "powers": {"alpha": 0.5, "beta": 2.0, "topk": 5},
    "score_only": {"beta": 0.0, "topk": 40},
    "all": {"topk": 1000},
    "eps": {"eps": 0.1},
}
variants = pytest.mark.parametrize("arguments", VARIANTS.values(), ids=VARIANTS)


def by_loop(assigner, priors, gts, labels, scores, boxes):
    """Ground truth (or None), metric and IoU of each prior of one image: the definition, word for word."""
    overlap = pairwise_overlap(boxes, gts)
    result = [(None, 0.0, 0.0)] * len(priors)
    for m, gt in enumerate(gts):
        metric = scores[:, labels[m]] ** assigner.alpha * overlap[:, m] ** assigner.beta
        for n in metric.argsort(descending=True, stable=True)[: assigner.topk].tolist():
            center = priors.centers[n]
            inside = torch.cat((center - gt[:2], gt[2:] - center)).min() > 0.01
            if metric[n] > 0 and inside and (result[n][0] is None or overlap[n, m] > result[n][2]):
                result[n] = (m, metric[n].item(), overlap[n, m].item())
    return result


def soft_labels(assigner, found):
    for m, metric, _ in found:
        mine = [row for row in found if row[0] == m]
        best, best_iou = (max(row[i] for row in mine) for i in (1, 2))
        yield 0.0 if m is None else metric / (best + assigner.eps) * best_iou


@variants
def test_as_by_loop(arguments, priors, image, predicted):
    targets = Targets.stack([image(count, seed=count) for count in (7, 1, 0, 4)])
    predictions = predicted(priors, targets)
    of = {q: TaskAlignedAssigner(**arguments, quality=q) for q in ("soft_label", "metric", "iou")}
    assignments = {q: assigner.assign(priors, targets, predictions) for q, assigner in of.items()}
    assert assignments["iou"].positive.sum() >= 3
    for i, rows in enumerate(targets.valid.sum(1).tolist()):
        gts, labels, scores = (
            targets.boxes[i, :rows],
            targets.labels[i, :rows],
            predictions.logits[i].sigmoid(),
        )
        found = by_loop(of["iou"], priors, gts, labels, scores, predictions.boxes[i])
        wanted = {
            "soft_label": list(soft_labels(of["iou"], found)),
            "metric": [metric for _, metric, _ in found],
            "iou": [iou for _, _, iou in found],
        }
        for name, assignment in assignments.items():
            assert assignment.state[i].tolist() == [int(m is not None) for m, _, _ in found]
            assert assignment.gt_index[i].tolist() == [m or 0 for m, _, _ in found]
            torch.testing.assert_close(assignment.quality[i], torch.tensor(wanted[name]))


def test_scores_stand_for_logits(priors, targets, predictions, same):
    """Heads that compose their scores give probabilities; the logits are not looked at then."""
    scores = predictions.logits.sigmoid()
    both = Predictions(torch.full_like(scores, torch.nan), predictions.boxes, scores=scores)
    assigner = TaskAlignedAssigner()
    same(assigner.assign(priors, targets, both), assigner.assign(priors, targets, predictions))


def scene(boxes, logits, gts):
    """Priors at the centre of a box around them, with these predictions."""
    priors = Priors(torch.tensor([[16.0, 16.0, 16.0, 16.0]] * len(boxes)), torch.full((len(boxes), 2), 8.0))
    targets = Targets.stack(
        [{"boxes": torch.tensor(gts), "labels": torch.zeros(len(gts), dtype=torch.int64)}]
    )
    return priors, targets, Predictions(torch.tensor(logits)[None, :, None], torch.tensor(boxes)[None])


def test_soft_labels_do_not_vanish():
    """A metric of 1e-12 still makes the best IoU the label of the best; the reference's eps is behind a switch."""
    gt = [[0.0, 0.0, 100.0, 100.0]]
    priors, targets, predictions = scene([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 9.0, 9.0]], [0.0, 0.0], gt)
    quality = TaskAlignedAssigner().assign(priors, targets, predictions).quality[0]
    assert quality[0].item() == pytest.approx(0.01)
    assert quality[1].item() == pytest.approx(0.01 * 0.81**6)
    assert TaskAlignedAssigner(eps=1e-7).assign(priors, targets, predictions).quality.max() < 1e-6


def test_equal_metrics_go_to_the_first():
    boxes = [[0.0, 0.0, 32.0, 32.0]] * 4
    priors, targets, predictions = scene(boxes, [0.0] * 4, [[0.0, 0.0, 32.0, 32.0]] * 2)
    assignment = TaskAlignedAssigner(topk=2).assign(priors, targets, predictions)
    assert assignment.state.tolist() == [[1, 1, 0, 0]]
    assert assignment.gt_index.tolist() == [[0, 0, 0, 0]]


def test_what_overlaps_nothing_is_no_positive():
    priors, targets, predictions = scene([[200.0, 200.0, 210.0, 210.0]], [5.0], [[0.0, 0.0, 32.0, 32.0]])
    assert TaskAlignedAssigner().assign(priors, targets, predictions).state.item() == 0


def test_errors():
    with pytest.raises(ConfigError, match=r"topk: .*greater than or equal to 1; got 0"):
        TaskAlignedAssigner(topk=0)
    with pytest.raises(ConfigError, match=r"quality: .*'soft_label', 'metric' or 'iou'.*got 'score'"):
        TaskAlignedAssigner(quality="score")
    with pytest.raises(ConfigError, match=r"beta: .*greater than or equal to 0; got -1"):
        TaskAlignedAssigner(beta=-1)
