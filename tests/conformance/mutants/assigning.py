"""Wrong assigners, samplers, coders and prior generators."""

import torch
from detcore_assigners import MaxIoUAssigner
from detcore_coders import DeltaXYWHBBoxCoder
from detcore_priors import AnchorGenerator
from detcore_samplers import RandomSampler

from detcore.structures import Encoded


class _Assigner(MaxIoUAssigner):
    """Settings with defaults."""

    def __init__(self, *, pos_iou_thr: float = 0.5, neg_iou_thr: float = 0.4) -> None:
        super().__init__(pos_iou_thr=pos_iou_thr, neg_iou_thr=neg_iou_thr)


class ForgetsThePadding(_Assigner):
    """Takes padded rows for ground truths."""

    def assign(self, priors, targets, predictions=None, batch=None):
        return super().assign(priors, targets.replace(valid=torch.ones_like(targets.valid)))


class LeaksBetweenImages(_Assigner):
    """The quality depends on the number of objects in the whole batch."""

    def assign(self, priors, targets, predictions=None, batch=None):
        found = super().assign(priors, targets)
        return found.replace(quality=found.quality / (1 + targets.matchable.sum()))


class AssignsIgnoredRows(_Assigner):
    """Does not look at the flag."""

    def assign(self, priors, targets, predictions=None, batch=None):
        return super().assign(priors, targets.replace(ignore=torch.zeros_like(targets.ignore)))


class PositiveWithoutObjects(_Assigner):
    """The first prior is positive where there is nothing to find."""

    def assign(self, priors, targets, predictions=None, batch=None):
        found = super().assign(priors, targets)
        state = found.state.clone()
        state[:, :1] = torch.where(targets.valid.any(1, keepdim=True), state[:, :1], 1)
        return found.replace(state=state)


class TakesInvalidPriors(_Assigner):
    """Does not look at ``priors.valid``."""

    def assign(self, priors, targets, predictions=None, batch=None):
        return super().assign(priors.replace(valid=None), targets)


class DependsOnTheOrder(_Assigner):
    """The quality grows with the row."""

    def assign(self, priors, targets, predictions=None, batch=None):
        found = super().assign(priors, targets)
        return found.replace(quality=found.quality * (1 + found.gt_index))


class WritesToItsTargets(_Assigner):
    """Clears the padding in place."""

    def assign(self, priors, targets, predictions=None, batch=None):
        targets.boxes[~targets.valid] = 0
        return super().assign(priors, targets)


class NeedsSomethingUnknown(_Assigner):
    """Declares what there is not."""

    needs = frozenset({"level"})


class NeedsMoreThanItSays(_Assigner):
    """Reads the grid without a word."""

    def assign(self, priors, targets, predictions=None, batch=None):
        if len(priors) == 420:
            _ = priors.levels[0]
        return super().assign(priors, targets)


class HoldsEveryPair(_Assigner):
    """Keeps an overlap for each pair at once."""

    def assign(self, priors, targets, predictions=None, batch=None):
        torch.ones(len(targets), targets.valid.shape[1], len(priors), dtype=torch.bool)
        return super().assign(priors, targets)


class InfiniteQuality(_Assigner):
    """A quality that is not finite where the area is 0."""

    def assign(self, priors, targets, predictions=None, batch=None):
        found = super().assign(priors, targets)
        extent = (targets.boxes[..., 2:] - targets.boxes[..., :2]).prod(-1)
        flat = (targets.valid & (extent == 0)).any(1, keepdim=True)
        return found.replace(quality=torch.where(flat, torch.nan, found.quality))


class KeepsTheIndexOfNegatives(_Assigner):
    """gt_index is not 0 where not positive."""

    def assign(self, priors, targets, predictions=None, batch=None):
        found = super().assign(priors, targets)
        last = targets.valid.sum(1, keepdim=True).clamp(min=1) - 1
        return found.replace(gt_index=torch.where(found.positive, found.gt_index, last))


class FindsNothing(_Assigner):
    """Every prior is negative."""

    def assign(self, priors, targets, predictions=None, batch=None):
        found = super().assign(priors, targets)
        state = torch.where(found.positive, 0, found.state).to(torch.int8)
        return found.replace(state=state, gt_index=torch.zeros_like(found.gt_index))


# ---------------------------------------------------------------------------------------------- samplers


class _Sampler(RandomSampler):
    """Settings with defaults."""

    def __init__(self, *, num: int = 32, pos_fraction: float = 0.25) -> None:
        super().__init__(num=num, pos_fraction=pos_fraction)


class ExceedsNum(_Sampler):
    """Takes all positives on top."""

    def sample(self, assignment, *, predict=None, generator=None):
        found = super().sample(assignment, predict=predict, generator=generator)
        return found.replace(positive=assignment.positive)


class TakesNegativesForPositives(_Sampler):
    """Turns a negative into a positive."""

    def sample(self, assignment, *, predict=None, generator=None):
        found = super().sample(assignment, predict=predict, generator=generator)
        first = found.negative & (found.negative.cumsum(1) == 1)
        return found.replace(positive=found.positive | first, negative=found.negative & ~first)


class TakesIgnoredForNegatives(_Sampler):
    """Takes an ignored prior in place of a negative."""

    def sample(self, assignment, *, predict=None, generator=None):
        found = super().sample(assignment, predict=predict, generator=generator)
        ignored = assignment.state == -1
        first = ignored & (ignored.cumsum(1) == 1)
        dropped = found.negative & (found.negative.cumsum(1) == 1)
        return found.replace(negative=found.negative & ~dropped | first)


class DrawsFromTheGlobalGenerator(_Sampler):
    """Does not look at its own."""

    def sample(self, assignment, *, predict=None, generator=None):
        return super().sample(assignment, predict=predict)


class DrawsByPlace(_Sampler):
    """An image's numbers depend on its place in the batch."""

    def sample(self, assignment, *, predict=None, generator=None):
        found = super().sample(assignment, predict=predict, generator=generator)
        place = torch.arange(len(found.positive))[:, None]
        drop = found.negative & ((found.negative.cumsum(1) + place) % 3 == 0)
        return found.replace(negative=found.negative & ~drop)


class TakesNothing(_Sampler):
    """An empty sample."""

    def sample(self, assignment, *, predict=None, generator=None):
        found = super().sample(assignment, predict=predict, generator=generator)
        none = torch.zeros_like(found.positive)
        return found.replace(positive=none, negative=none)


# ------------------------------------------------------------------------------------------------ coders


class DoesNotInvert(DeltaXYWHBBoxCoder):
    """Decodes with another scale than it encodes with."""

    def decode(self, priors, codes, sizes=None):
        return super().decode(priors, codes * 1.1, sizes)


class DoesNotBroadcast(DeltaXYWHBBoxCoder):
    """Wants as many priors as codes."""

    def decode(self, priors, codes, sizes=None):
        if codes.numel() and codes.dim() > 2 and priors.boxes.shape != codes.shape:
            raise RuntimeError(f"shapes differ: {priors.boxes.shape}, {codes.shape}")
        return super().decode(priors, codes, sizes)


class EncodesOnlyPairs(DeltaXYWHBBoxCoder):
    """Wants as many priors as boxes."""

    def encode(self, priors, boxes):
        if priors.boxes.shape != boxes.shape and boxes.numel():
            raise RuntimeError(f"shapes differ: {priors.boxes.shape}, {boxes.shape}")
        return super().encode(priors, boxes)


class DoesNotClip(DeltaXYWHBBoxCoder):
    """Does not look at the sizes."""

    def decode(self, priors, codes, sizes=None):
        return super().decode(priors, codes)


class DividesByZero(DeltaXYWHBBoxCoder):
    """Infinite codes for boxes without extent."""

    def encode(self, priors, boxes):
        extent = (boxes[..., 2:] - boxes[..., :2]).clamp(min=0)
        return Encoded(super().encode(priors, boxes).values + 0 / extent.repeat_interleave(2, -1))


class OverflowsOnLargeCodes(DeltaXYWHBBoxCoder):
    """No limit on the exponent."""

    def decode(self, priors, codes, sizes=None):
        boxes = super().decode(priors, codes, sizes)
        return torch.where(codes > 10, codes.exp(), boxes)


class CutsTheGradient(DeltaXYWHBBoxCoder):
    """Half of the codes get no gradient."""

    def decode(self, priors, codes, sizes=None):
        return super().decode(priors, torch.cat((codes[..., :2], codes[..., 2:].detach()), -1), sizes)


# ---------------------------------------------------------------------------------------- prior generators


class _Anchors(AnchorGenerator):
    """Settings with defaults."""

    def __init__(self, *, strides: tuple[int, ...] = (8, 16, 32)) -> None:
        super().__init__(strides=strides, ratios=(0.5, 1.0), scales=(4.0,))


class ColumnMajor(_Anchors):
    """x before y."""

    def __call__(self, level_sizes, batch):
        priors = super().__call__(level_sizes, batch)
        levels = priors.boxes.split([level.count for level in priors.levels])
        turned = [
            boxes.reshape(level.h, level.w, level.per_cell, 4).transpose(0, 1).reshape(-1, 4)
            for boxes, level in zip(levels, priors.levels, strict=True)
        ]
        return priors.replace(boxes=torch.cat(turned))


class MiscountsItsPriors(_Anchors):
    """Says three per cell, gives two."""

    def __init__(self, *, strides: tuple[int, ...] = (8, 16, 32)) -> None:
        super().__init__(strides=strides)
        self._told = (3,) * len(strides)

    @property
    def num_per_cell(self):
        return self._told

    @num_per_cell.setter
    def num_per_cell(self, value):
        pass


class ForgetsWhatIsValid(_Anchors):
    """Priors in the padding are as good as others."""

    def __call__(self, level_sizes, batch):
        priors = super().__call__(level_sizes, batch)
        every = torch.ones(len(batch), len(priors), dtype=torch.bool)
        return priors.replace(valid=every)


class WrongStrides(_Anchors):
    """Half the stride in each row."""

    def __call__(self, level_sizes, batch):
        priors = super().__call__(level_sizes, batch)
        return priors.replace(strides=priors.strides / 2)


class TakesAnyNumberOfLevels(_Anchors):
    """Uses as many as there are."""

    def __call__(self, level_sizes, batch):
        count = len(self.num_per_cell)
        sizes = [*level_sizes, *[(1, 1)] * count][:count]
        return super().__call__(sizes, batch)


class StretchesWithTheMap(_Anchors):
    """Anchors move with the size of the map."""

    def __call__(self, level_sizes, batch):
        priors = super().__call__(level_sizes, batch)
        return priors.replace(boxes=priors.boxes + level_sizes[0][0])


SOUND = [_Assigner, _Sampler, DeltaXYWHBBoxCoder, _Anchors]
MUTANTS = [
    (ForgetsThePadding, {"assigner_ignores_padding"}, {"assigner_positives_answer_for_objects"}),
    (LeaksBetweenImages, {"assigner_images_are_independent"}, set()),
    (
        AssignsIgnoredRows,
        {"assigner_positives_answer_for_objects"},
        {"assigner_without_objects_has_no_positive"},
    ),
    (
        PositiveWithoutObjects,
        {"assigner_without_objects_has_no_positive"},
        {"assigner_leaves_invalid_priors_out", "assigner_positives_answer_for_objects"},
    ),
    (TakesInvalidPriors, {"assigner_leaves_invalid_priors_out"}, set()),
    (DependsOnTheOrder, {"assigner_ignores_order_of_objects"}, set()),
    (WritesToItsTargets, {"assigner_leaves_its_arguments"}, set()),
    (NeedsSomethingUnknown, {"assigner_needs_are_true"}, set()),
    (NeedsMoreThanItSays, {"assigner_needs_are_true"}, set()),
    (HoldsEveryPair, {"assigner_memory_is_bounded"}, set()),
    (InfiniteQuality, {"assigner_result_is_well_formed"}, set()),
    (
        KeepsTheIndexOfNegatives,
        {"assigner_result_is_well_formed"},
        {"assigner_takes_any_priors", "assigner_takes_five_thousand_objects", "assigner_takes_float64"},
    ),
    (FindsNothing, {"assigner_finds_what_lies_on_a_prior"}, set()),
    (ExceedsNum, {"sampler_takes_no_more_than_num"}, set()),
    (TakesNegativesForPositives, {"sampler_positives_are_positive"}, set()),
    (TakesIgnoredForNegatives, {"sampler_negatives_are_negative"}, {"sampler_takes_no_more_than_num"}),
    (DrawsFromTheGlobalGenerator, {"sampler_draws_from_its_generator"}, set()),
    (DrawsByPlace, {"sampler_images_are_independent"}, set()),
    (TakesNothing, {"sampler_takes_something"}, set()),
    (DoesNotInvert, {"coder_inverts"}, set()),
    (DoesNotBroadcast, {"coder_decode_broadcasts"}, {"coder_clips"}),
    (EncodesOnlyPairs, {"coder_encode_broadcasts"}, set()),
    (DoesNotClip, {"coder_clips"}, set()),
    (DividesByZero, {"coder_survives_boxes_without_extent"}, set()),
    (OverflowsOnLargeCodes, {"coder_survives_large_codes"}, set()),
    (CutsTheGradient, {"coder_gradients_are_right"}, set()),
    (
        ColumnMajor,
        {"priors_are_in_order"},
        {"priors_of_a_cell_are_always_the_same"},
    ),
    (MiscountsItsPriors, {"priors_are_counted"}, set()),
    (ForgetsWhatIsValid, {"priors_in_the_padding_are_invalid"}, set()),
    (WrongStrides, {"priors_know_their_strides"}, set()),
    (TakesAnyNumberOfLevels, {"priors_need_all_levels"}, set()),
    (StretchesWithTheMap, {"priors_of_a_cell_are_always_the_same"}, set()),
]
