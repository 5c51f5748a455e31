"""Wrong losses, and components that are wrong whatever they do."""

import itertools
import random
from typing import Annotated

import torch
from detcore_losses import FocalLoss, GIoULoss, L1Loss
from pydantic import BeforeValidator
from torch import Tensor

from detcore.interfaces import BoxLoss, Loss
from detcore.testing import Subject


class Squares(BoxLoss):
    """Squared differences, done right."""

    def __init__(self, *, loss_weight: float = 1.0, reduction: str = "mean") -> None:
        super().__init__()
        self.loss_weight, self.reduction = loss_weight, reduction

    def forward(self, pred, target, *, weight=None, avg_factor=None, reduction=None):
        reduction = reduction or self.reduction
        if reduction == "sum" and avg_factor is not None:
            raise ValueError("avg_factor has no meaning with reduction 'sum'")
        pred = pred.float() if pred.dtype in (torch.bfloat16, torch.float16) else pred
        if weight is not None:
            weight = weight.reshape(-1, *[1] * (pred.dim() - weight.dim()))
            pred = torch.where(weight > 0, pred, target.to(pred.dtype))
        terms = self.terms(pred, target) * self.loss_weight
        terms = self.weighted(terms, weight)
        return self.reduced(terms, avg_factor, reduction)

    def terms(self, pred, target):
        return (pred - target).square()

    def weighted(self, terms, weight):
        return terms if weight is None else terms * weight

    def reduced(self, terms, avg_factor, reduction):
        if reduction == "none":
            return terms
        divisor = 1 if reduction == "sum" else max(terms.numel(), 1) if avg_factor is None else avg_factor
        return terms.sum() / divisor


class NaNOfNothing(Squares):
    """The mean of no value."""

    def reduced(self, terms, avg_factor, reduction):
        if reduction == "mean" and avg_factor is None:
            return terms.mean()
        return super().reduced(terms, avg_factor, reduction)


class IsNotConnected(Squares):
    """A constant where there is no row."""

    def reduced(self, terms, avg_factor, reduction):
        if not terms.numel() and reduction != "none":
            return torch.zeros(())
        return super().reduced(terms, avg_factor, reduction)


class IgnoresWeights(Squares):
    """Every row counts alike."""

    def weighted(self, terms, weight):
        return terms


class HidesNothing(FocalLoss):
    """Multiplies by the weight what may be infinite."""

    def forward(self, pred, target, *, weight=None, avg_factor=None, reduction=None, quality=None):
        loss = super().forward(pred, target, weight=weight, avg_factor=avg_factor, reduction=reduction)
        return loss + 1e-8 * (pred / 100).square().sum() * (weight is not None)


class AveragesWrongly(Squares):
    """The mean is over rows, not over values."""

    def reduced(self, terms, avg_factor, reduction):
        if reduction == "mean" and avg_factor is None:
            return terms.sum() / max(len(terms), 1)
        return super().reduced(terms, avg_factor, reduction)


class IgnoresItsWeight(Squares):
    """loss_weight is for show."""

    def terms(self, pred, target):
        return super().terms(pred, target) / self.loss_weight


class TakesAnAverageOfASum(Squares):
    """Accepts what has no meaning."""

    def forward(self, pred, target, *, weight=None, avg_factor=None, reduction=None):
        avg_factor = None if reduction == "sum" else avg_factor
        return super().forward(pred, target, weight=weight, avg_factor=avg_factor, reduction=reduction)


class LooksAtOtherRows(Squares):
    """Each row relative to the largest."""

    def terms(self, pred, target):
        terms = super().terms(pred, target)
        return terms / terms.detach().max().clamp(min=1e-3) if terms.numel() else terms


class WrongGradient(Squares):
    """Half of the difference counts as a constant."""

    def terms(self, pred, target):
        return (pred - target) * (pred - target).detach()


class OverflowsInHalf(Squares):
    """Computes in the precision that it is given."""

    def forward(self, pred, target, *, weight=None, avg_factor=None, reduction=None):
        if pred.dtype == torch.float16:
            return (pred * 1e4 - target.half() * 1e4).abs().sum() / 1e4
        return super().forward(pred, target, weight=weight, avg_factor=avg_factor, reduction=reduction)


class NaNWhenEqual(GIoULoss):
    """0 / 0 for boxes that are equal."""

    def forward(self, pred, target, *, weight=None, avg_factor=None, reduction=None):
        equal = (pred == target).all() & bool(pred.numel()) & (weight is None)
        loss = super().forward(pred, target, weight=weight, avg_factor=avg_factor, reduction=reduction)
        return loss + torch.where(equal, torch.nan, 0.0)


class PrefersOthers(L1Loss):
    """Best where the prediction is one off."""

    def forward(self, pred, target, *, weight=None, avg_factor=None, reduction=None):
        target = target + 1 if weight is None else target
        return super().forward(pred, target, weight=weight, avg_factor=avg_factor, reduction=reduction)


class ScoresAreLogits(FocalLoss):
    """No activation."""

    def scores(self, logits):
        return logits


class TeachesTheNextClass(FocalLoss):
    """Labels are one off."""

    def forward(self, pred, target, *, weight=None, avg_factor=None, reduction=None, quality=None):
        target = torch.where(target < 3, (target + 1) % 3, target)
        return super().forward(pred, target, weight=weight, avg_factor=avg_factor, reduction=reduction)


class CannotBeFed(Loss):
    """Wants something of its own."""

    def __init__(self, *, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.loss_weight = loss_weight

    def forward(self, pred, target, *, weight=None, avg_factor=None, reduction=None) -> Tensor:
        raise ValueError("pred should be a complex number")


class WritesToItsPredictions(Squares):
    """Clamps in place."""

    def forward(self, pred, target, *, weight=None, avg_factor=None, reduction=None):
        if not pred.requires_grad and target.is_floating_point() and len(target) == 12:
            target[:1] = target[:1] + 0.125
        return super().forward(pred, target, weight=weight, avg_factor=avg_factor, reduction=reduction)


# -------------------------------------------------------------------------------------------- any component


class DoesNotRoundTrip(L1Loss):
    """A value that is changed each time it is read."""

    def __init__(
        self,
        *,
        scale: Annotated[float, BeforeValidator(lambda v: 2 * float(v))] = 1.0,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(loss_weight=loss_weight)
        self.scale = scale


class CannotBePickled(Squares):
    """Holds a function without a name."""

    def __init__(self, *, loss_weight: float = 1.0, reduction: str = "mean") -> None:
        super().__init__(loss_weight=loss_weight, reduction=reduction)
        self.function = lambda x: x


class CannotBeCopied(Squares):
    """A copy shares its buffer."""

    def __init__(self, *, loss_weight: float = 1.0, reduction: str = "mean") -> None:
        super().__init__(loss_weight=loss_weight, reduction=reduction)
        self.register_buffer("unit", torch.ones(1))

    def __deepcopy__(self, memo):
        copied = type(self)(loss_weight=self.loss_weight, reduction=self.reduction)
        copied.unit = self.unit
        return copied


class LosesItsState(Squares):
    """A buffer that matters and is not saved."""

    def __init__(self, *, loss_weight: float = 1.0, reduction: str = "mean") -> None:
        super().__init__(loss_weight=loss_weight, reduction=reduction)
        self.register_buffer("unit", torch.ones(1))

    def _load_from_state_dict(self, *arguments, **options):
        pass


class IsNotDeterministic(Squares):
    """Another result each time."""

    def terms(self, pred, target):
        return super().terms(pred, target) * (1 + random.SystemRandom().random())


SHARED = [1.0]


class SharesState(Squares):
    """All instances have one list."""

    def __init__(self, *, loss_weight: float = 1.0, reduction: str = "mean") -> None:
        super().__init__(loss_weight=loss_weight, reduction=reduction)
        self.history = SHARED


class IsBuiltByChance(Squares):
    """Weights from elsewhere than torch's generator."""

    numbers = itertools.count()

    def __init__(self, *, loss_weight: float = 1.0, reduction: str = "mean") -> None:
        super().__init__(loss_weight=loss_weight, reduction=reduction)
        self.register_buffer("unit", torch.full((1,), float(next(self.numbers))))


class ChangesTorch(Squares):
    """Sets a flag for the whole process."""

    def __init__(self, *, loss_weight: float = 1.0, reduction: str = "mean") -> None:
        super().__init__(loss_weight=loss_weight, reduction=reduction)
        torch.backends.cudnn.benchmark = True


class Undocumented(Squares):
    pass


SOUND = [Squares, L1Loss, FocalLoss, Subject(GIoULoss.spec())]
WEIGHTS = {"loss_weight_zero_hides_rows", "loss_with_all_weights_zero_is_zero"}
MUTANTS = [
    (NaNOfNothing, {"loss_of_nothing_is_zero"}, set()),
    (IsNotConnected, {"loss_of_nothing_is_zero"}, set()),
    (IgnoresWeights, {"loss_weights_scale"}, WEIGHTS),
    (HidesNothing, {"loss_weight_zero_hides_rows"}, {"loss_with_all_weights_zero_is_zero"}),
    (AveragesWrongly, {"loss_reductions_agree"}, set()),
    (IgnoresItsWeight, {"loss_weight_is_a_factor"}, set()),
    (TakesAnAverageOfASum, {"loss_sum_takes_no_avg_factor"}, set()),
    (LooksAtOtherRows, {"loss_rows_are_independent"}, {"loss_gradient_is_right", "loss_weights_scale"}),
    (WrongGradient, {"loss_gradient_is_right"}, set()),
    (OverflowsInHalf, {"loss_takes_half_precision"}, set()),
    (NaNWhenEqual, {"box_loss_survives_odd_boxes"}, {"box_loss_prefers_the_target"}),
    (PrefersOthers, {"box_loss_prefers_the_target"}, {"loss_weights_scale"}),
    (ScoresAreLogits, {"class_scores_are_probabilities"}, set()),
    (TeachesTheNextClass, {"class_loss_teaches_its_scores"}, set()),
    (CannotBeFed, {"loss_can_be_fed"}, set()),
    (
        WritesToItsPredictions,
        {"loss_leaves_its_arguments"},
        {
            "loss_reductions_agree",
            "loss_weights_scale",
            "loss_rows_are_independent",
            "loss_weight_is_a_factor",
        },
    ),
    (DoesNotRoundTrip, {"component_config_round_trip"}, set()),
    (CannotBePickled, {"component_pickles"}, set()),
    (CannotBeCopied, {"component_copies"}, set()),
    (LosesItsState, {"component_state_round_trip"}, set()),
    (IsNotDeterministic, {"component_is_deterministic"}, set()),
    (SharesState, {"component_instances_are_independent"}, set()),
    (IsBuiltByChance, {"component_construction_is_seeded"}, set()),
    (ChangesTorch, {"component_leaves_torch_alone"}, set()),
    (Undocumented, {"component_is_described"}, set()),
]
