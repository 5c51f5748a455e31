"""Wrong mergers of views."""

import torch
from detcore_postprocess import NMSMerger

from detcore.structures import Detections


class KeepsRepetitions(NMSMerger):
    """Gives what all views found, one after the other, and suppresses nothing."""

    def __call__(self, views, *, max_per_img, weights=None):
        super().__call__(views, max_per_img=max_per_img, weights=weights)  # refuses what makes no sense
        found = [
            super(KeepsRepetitions, self).__call__([v], max_per_img=max_per_img, weights=[1]) for v in views
        ]
        scores = torch.cat([one.scores for one in found], 1)
        scores, order = scores.sort(dim=1, descending=True, stable=True)
        order = order[:, :max_per_img]
        return Detections(
            boxes=torch.cat([one.boxes for one in found], 1).gather(1, order[..., None].expand(-1, -1, 4)),
            scores=scores[:, :max_per_img],
            labels=torch.cat([one.labels for one in found], 1).gather(1, order),
            valid=torch.cat([one.valid for one in found], 1).gather(1, order),
        )


class SuppressesOverTheBatch(NMSMerger):
    """Scores are compared with the best one of the whole batch."""

    def __call__(self, views, *, max_per_img, weights=None):
        found = super().__call__(views, max_per_img=max_per_img, weights=weights)
        return found.replace(scores=found.scores / found.scores.max().clamp(min=0.8) * 0.8)


class WritesToItsViews(NMSMerger):
    """Weighs the views in place."""

    def __call__(self, views, *, max_per_img, weights=None):
        found = super().__call__(views, max_per_img=max_per_img, weights=weights)
        for view in views:
            view.scores.mul_(0.5)
        return found


class TakesAnyWeights(NMSMerger):
    """Does not look at the weights."""

    def __call__(self, views, *, max_per_img, weights=None):
        return super().__call__(views, max_per_img=max_per_img)


SOUND = [NMSMerger]
MUTANTS = [
    (KeepsRepetitions, {"merger_finds_what_all_views_find"}, set()),
    (SuppressesOverTheBatch, {"merger_images_are_independent"}, set()),
    (
        WritesToItsViews,
        {"merger_leaves_its_arguments"},
        {"merger_images_are_independent", "merger_padding_changes_nothing"},
    ),
    (TakesAnyWeights, {"merger_refuses_what_makes_no_sense"}, set()),
]
