"""Checks of losses.

``Subject.inputs`` may hold ``loss``: a function from (rows, generator) to the arguments ``pred`` and ``target``
(and what else ``forward`` takes) for losses whose input the kit cannot find out; and ``gradcheck``: False where
the gradient is not meant to be that of the value (parts of the formula count as constants).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from detcore.interfaces import BoxLoss, ClassificationLoss, Loss
from detcore.testing.checking import Trial, check, probe
from detcore.testing.errors import NotApplicableError
from detcore.testing.modules import compiled
from detcore.testing.subject import NUM_CLASSES, given

Inputs = dict[str, Any]
Maker = Callable[[int, torch.Generator], Inputs]


def _random_boxes(rows: int, generator: torch.Generator) -> Tensor:
    corner = torch.rand(rows, 2, generator=generator) * 60
    return torch.cat((corner, corner + 5 + torch.rand(rows, 2, generator=generator) * 40), -1)


def _boxes(rows: int, generator: torch.Generator) -> Inputs:
    target = _random_boxes(rows, generator)
    return {"pred": target + torch.rand(rows, 4, generator=generator) * 6 - 3, "target": target}


def _codes(rows: int, generator: torch.Generator) -> Inputs:
    return {name: torch.randn(rows, 4, generator=generator) for name in ("pred", "target")}


def _labels(loss: Any) -> Maker:
    def make(rows: int, generator: torch.Generator) -> Inputs:
        pred = torch.randn(rows, loss.channels(NUM_CLASSES), generator=generator)
        return {"pred": pred, "target": torch.randint(NUM_CLASSES + 1, (rows,), generator=generator)}

    return make


def _labels_and_quality(loss: Any) -> Maker:
    def make(rows: int, generator: torch.Generator) -> Inputs:
        inputs = _labels(loss)(rows, generator)
        return {**inputs, "quality": torch.rand(rows, generator=generator)}

    return make


def _soft(channels: int) -> Maker:
    def make(rows: int, generator: torch.Generator) -> Inputs:
        pred = torch.randn(rows, channels, generator=generator)
        return {"pred": pred, "target": torch.rand(rows, channels, generator=generator)}

    return make


def _makers(loss: Loss) -> list[Maker]:
    """What a loss of this interface may take, the likeliest first."""
    if isinstance(loss, ClassificationLoss):
        soft = _soft(loss.channels(NUM_CLASSES))
        return [_labels(loss), _labels_and_quality(loss), soft]
    if isinstance(loss, BoxLoss):
        return [_boxes if loss.space == "boxes" else _codes]
    return [_codes, _soft(1), _soft(NUM_CLASSES)]


def inputs_of(trial: Trial, loss: Loss, rows: int = 12) -> Inputs:
    """Arguments that the loss takes.

    Raises:
        NotApplicableError: It takes none of what the kit can make up.
    """
    if "loss" in trial.subject.inputs:
        made: Inputs = trial.subject.inputs["loss"](rows, trial.generator())
        return made
    for maker in _makers(loss):
        inputs = maker(rows, trial.generator())
        try:
            loss(**{**inputs, "reduction": "mean"})
        except (ValueError, TypeError):
            continue
        trial.note(", ".join(f"{name} {list(value.shape)}" for name, value in inputs.items()))
        trial.note(f"seed={trial.seed}")
        return inputs
    raise NotApplicableError(
        "the kit cannot make up its inputs; give Subject(..., inputs={'loss': function})"
    )


def _value_and_gradient(loss: Loss, inputs: Inputs, **options: Any) -> tuple[Tensor, Tensor]:
    pred = inputs["pred"].detach().clone().requires_grad_()
    value = loss(**{**inputs, "pred": pred}, **options)
    if not value.requires_grad:
        return value, torch.full_like(pred, torch.nan)
    (gradient,) = torch.autograd.grad(value.sum(), pred, allow_unused=True)
    return value, torch.full_like(pred, torch.nan) if gradient is None else gradient


def _additive(trial: Trial) -> Loss:
    loss: Loss = trial.component()
    if not loss.additive:
        trial.skip("it is not additive")
    return loss


@probe(Loss)
def loss_once(loss: Loss, trial: Trial) -> Any:
    """Value and gradient on ordinary input."""
    return _value_and_gradient(loss, inputs_of(trial, loss))


@check(Loss)
def loss_can_be_fed(trial: Trial) -> None:
    """It takes the input of its interface, or an example says what it takes."""
    loss = trial.component()
    try:
        value, gradient = _value_and_gradient(loss, inputs_of(trial, loss))
    except NotApplicableError as error:
        trial.fail(str(error))
    trial.require(value.dim() == 0, f"its value has shape {list(value.shape)}, and is no scalar")
    trial.finite(value, "its value")
    trial.finite(gradient, "its gradient")


@check(Loss, cases=("mean", "sum", "avg_factor"))
def loss_of_nothing_is_zero(trial: Trial) -> None:
    """Without rows, "mean" and "sum" give 0, connected to the predictions."""
    loss = trial.component()
    inputs = {k: v[:0] if isinstance(v, Tensor) and v.dim() else v for k, v in inputs_of(trial, loss).items()}
    pred = inputs["pred"].detach().clone().requires_grad_()
    options = {"avg_factor": 1.0} if trial.case == "avg_factor" else {"reduction": trial.case}
    value = loss(**{**inputs, "pred": pred}, **{"reduction": "mean", **options})
    trial.require(value.dim() == 0, f"the value has shape {list(value.shape)}")
    trial.require(bool(value == 0), f"the value is {value.item()}")
    trial.require(value.requires_grad, "the value is not connected to the predictions")
    (gradient,) = torch.autograd.grad(value, pred)
    trial.finite(gradient, "the gradient")


@check(Loss, cases=("mean", "none"), compares=True)
def loss_weight_zero_hides_rows(trial: Trial) -> None:
    """Rows of weight 0 contribute neither value nor gradient, whatever they hold."""
    loss = trial.component()
    inputs = inputs_of(trial, loss)
    rows = len(inputs["pred"])
    weight = (torch.arange(rows) % 3 != 0).to(inputs["pred"].dtype)
    odd = {**inputs, "pred": torch.where(_like(weight, inputs["pred"]) > 0, inputs["pred"], 1e4)}
    trial.note("predictions of 1e4 where the weight is 0")
    values = []
    for given_inputs in (inputs, odd):
        value, gradient = _value_and_gradient(
            loss,
            given_inputs,
            weight=weight,
            reduction=trial.case,
            **({"avg_factor": 5.0} if trial.case == "mean" else {}),
        )
        trial.finite(value, "the value")
        trial.finite(gradient, "the gradient")
        trial.require(gradient[weight == 0] == 0, "a row of weight 0 has a gradient", gradient[weight == 0])
        values.append((value, gradient))
        loss = trial.component()
    trial.same(values[1], values[0], "with other predictions in rows of weight 0, value and gradient")


def _like(weight: Tensor, values: Tensor) -> Tensor:
    """Weights of rows with the dimensions of the values."""
    return weight.reshape(-1, *[1] * (values.dim() - 1))


@check(Loss, cases=("mean", "sum"))
def loss_with_all_weights_zero_is_zero(trial: Trial) -> None:
    """With weight 0 everywhere value and gradient are 0."""
    loss = trial.component()
    inputs = inputs_of(trial, loss)
    weight = torch.zeros(len(inputs["pred"]))
    value, gradient = _value_and_gradient(loss, inputs, weight=weight, reduction=trial.case)
    trial.require(bool(value == 0), f"the value is {value.tolist()}")
    trial.require(gradient == 0, "the gradient is not 0", gradient)


@check(Loss, compares=True)
def loss_weights_scale(trial: Trial) -> None:
    """A row's loss is proportional to its weight."""
    loss = _additive(trial)
    inputs = inputs_of(trial, loss)
    weight = 0.5 + torch.rand(len(inputs["pred"]), generator=trial.generator())
    plain = loss(**inputs, reduction="none")
    weighted = loss(**inputs, reduction="none", weight=weight)
    trial.require(
        weighted.shape == plain.shape, f"weights change the shape of the result to {list(weighted.shape)}"
    )
    trial.same(weighted, plain * _like(weight, plain), "the weighted loss of each row")


@check(Loss, compares=True)
def loss_reductions_agree(trial: Trial) -> None:
    """Reduction "sum" is the sum, "mean" the mean of what "none" gives, or the sum over ``avg_factor``."""
    loss = _additive(trial)
    inputs = inputs_of(trial, loss)
    every = loss(**inputs, reduction="none")
    trial.require(every.shape[:1] == inputs["pred"].shape[:1], f'"none" has shape {list(every.shape)}')
    trial.same(loss(**inputs, reduction="sum"), every.sum(), '"sum"')
    trial.same(loss(**inputs, reduction="mean"), every.mean(), '"mean"')
    averaged = loss(**inputs, reduction="mean", avg_factor=7.0)
    trial.same(averaged, every.sum() / 7, '"mean" with avg_factor=7')
    as_tensor = loss(**inputs, reduction="mean", avg_factor=torch.tensor(7.0))
    trial.same(as_tensor, averaged, '"mean" with avg_factor as a tensor')


@check(Loss)
def loss_sum_takes_no_avg_factor(trial: Trial) -> None:
    """``avg_factor`` with reduction "sum" is refused with a ValueError."""
    loss = trial.component()
    inputs = inputs_of(trial, loss)
    try:
        loss(**inputs, reduction="sum", avg_factor=3.0)
    except ValueError:
        return
    trial.fail("it is accepted")


@check(Loss, compares=True)
def loss_weight_is_a_factor(trial: Trial) -> None:
    """``loss_weight`` multiplies the result."""
    loss = trial.component()
    before = given(loss, "loss_weight")
    if not isinstance(before, float):
        trial.fail("it has no parameter loss_weight")
    inputs = inputs_of(trial, loss)
    single = trial.component()(**inputs, reduction="mean")
    doubled = trial.subject.build(loss_weight=2 * before)(**inputs, reduction="mean")
    trial.same(doubled, 2 * single, "with twice the loss_weight")


@check(Loss, compares=True)
def loss_rows_are_independent(trial: Trial) -> None:
    """The loss of a row does not depend on the other rows, nor on its place."""
    loss = _additive(trial)
    inputs = inputs_of(trial, loss)
    rows = len(inputs["pred"])
    every = loss(**inputs, reduction="none")
    order = torch.randperm(rows, generator=trial.generator())
    moved = {k: v[order] if isinstance(v, Tensor) and len(v) == rows else v for k, v in inputs.items()}
    trial.same(trial.component()(**moved, reduction="none"), every[order], "rows in another order")
    for i in (0, rows // 2, rows - 1):
        one = {k: v[i : i + 1] if isinstance(v, Tensor) and len(v) == rows else v for k, v in inputs.items()}
        trial.same(trial.component()(**one, reduction="none"), every[i : i + 1], f"row {i} alone")


@check(Loss, compares=True)
def loss_gradient_is_right(trial: Trial) -> None:
    """The gradient is that of finite differences, in float64."""
    if trial.subject.inputs.get("gradcheck") is False:
        trial.skip("parts of its formula count as constants")
    loss = trial.component()
    inputs = {
        k: v.double() if isinstance(v, Tensor) and v.is_floating_point() else v
        for k, v in inputs_of(trial, loss, 5).items()
    }
    pred = inputs.pop("pred").requires_grad_()
    state = {name: value.clone() for name, value in loss.state_dict().items()}

    def value(p: Tensor) -> Tensor:
        loss.load_state_dict(state)  # some remember what they have seen
        result: Tensor = loss(pred=p, **inputs, reduction="sum" if loss.additive else "mean")
        return result

    trial.require(value(pred).dtype == torch.float64, "the value is not float64")
    try:
        torch.autograd.gradcheck(value, (pred,))
    except RuntimeError as error:  # gradcheck's own
        trial.fail(str(error).splitlines()[0])


@check(Loss, cases=("bfloat16", "float16"), compares=True)
def loss_takes_half_precision(trial: Trial) -> None:
    """Predictions in half precision give a finite value near that of float32."""
    loss = trial.component()
    inputs = inputs_of(trial, loss)
    pred = inputs["pred"].to(getattr(torch, trial.case))
    value, gradient = _value_and_gradient(loss, {**inputs, "pred": pred})
    wanted, _ = _value_and_gradient(trial.component(), {**inputs, "pred": pred.float()})
    trial.finite(value, "the value")
    trial.finite(gradient, "the gradient")
    trial.same(value.float(), wanted, "the value", rtol=0.05, atol=0.05)


@check(Loss)
def loss_leaves_its_arguments(trial: Trial) -> None:
    """It writes to none of its arguments."""
    loss = trial.component()
    inputs = inputs_of(trial, loss)
    weight = torch.rand(len(inputs["pred"]), generator=trial.generator())
    with trial.unchanged("an argument", inputs, weight):
        loss(**inputs, weight=weight)


@check(Loss, slow=True, compares=True)
def loss_compiles(trial: Trial) -> None:
    """``torch.compile(fullgraph=True)`` takes it and gives the same."""
    loss = _additive(trial)
    inputs = inputs_of(trial, loss)
    wanted = loss(**inputs)
    trial.same(compiled(trial.component())(**inputs), wanted, "the compiled loss")


# -------------------------------------------------------------------------------------------------- boxes


@check(BoxLoss, cases=("equal", "apart", "no_extent", "both_without_extent", "inverted", "huge"))
def box_loss_survives_odd_boxes(trial: Trial) -> None:
    """Equal, disjoint, degenerate, inverted and huge boxes give a finite value and gradient."""
    loss = trial.component()
    target = _random_boxes(6, trial.generator())
    flat = torch.cat((target[:, :2], target[:, :2]), -1)
    pred = {
        "equal": target.clone(),
        "apart": target + 500,
        "no_extent": flat,
        "both_without_extent": flat,
        "inverted": target.roll(2, -1),
        "huge": target * 1e5,
    }[trial.case]
    target = flat if trial.case == "both_without_extent" else target
    value, gradient = _value_and_gradient(loss, {"pred": pred, "target": target})
    trial.finite(value, "the value")
    trial.finite(gradient, "the gradient")


@check(BoxLoss, cases=("0.02", "0.25", "1"), compares=True)
def box_loss_prefers_the_target(trial: Trial) -> None:
    """No prediction has a smaller loss than the target itself."""
    loss = _additive(trial)
    inputs = inputs_of(trial, loss)
    target = inputs["target"]
    other = target + float(trial.case) * (inputs["pred"] - target)
    at_target, elsewhere = (
        loss(pred, target, reduction="none").reshape(len(target), -1).sum(1) for pred in (target, other)
    )
    trial.require(at_target <= elsewhere + 1e-6, "it is smaller elsewhere", elsewhere - at_target)


# ------------------------------------------------------------------------------------------------ classes


@check(ClassificationLoss, cases=("1", "3", "80"))
def class_scores_are_probabilities(trial: Trial) -> None:
    """``scores`` gives a number in 0..1 for each class, for any leading dimensions."""
    loss = trial.component()
    if given(loss, "activated", False):
        trial.skip("it takes probabilities")
    classes = int(trial.case)
    if trial.subject.build().channels(classes) < classes:
        trial.fail(f"channels({classes}) is {loss.channels(classes)}")
    if "num_classes" in {**trial.subject.wired} or given(loss, "num_classes") not in (None, classes):
        trial.skip("it is made for another number of classes")
    for lead in ((5,), (2, 3), (0,), ()):
        logits = 4 * torch.randn(*lead, loss.channels(classes), generator=trial.generator())
        scores = loss.scores(logits)
        wanted = (*lead, classes)
        trial.require(scores.shape == wanted, f"scores have shape {list(scores.shape)}, not {list(wanted)}")
        trial.require((scores >= 0) & (scores <= 1), "a score is not in 0..1", scores)


@check(ClassificationLoss)
def class_loss_teaches_its_scores(trial: Trial) -> None:
    """Following the gradient, the score of the labelled class becomes the highest."""
    loss = trial.component()
    if given(loss, "activated", False) or "loss" in trial.subject.inputs:
        trial.skip("it takes no logits and labels")
    inputs = inputs_of(trial, loss)
    if inputs["target"].is_floating_point():
        trial.skip("it takes no labels")
    labels = inputs["target"] % NUM_CLASSES
    if "quality" in inputs:
        inputs["quality"] = torch.ones_like(inputs["quality"])
    logits = torch.zeros_like(inputs["pred"]).requires_grad_()
    for _ in range(60):
        value = loss(**{**inputs, "pred": logits, "target": labels, "reduction": "sum"})
        (gradient,) = torch.autograd.grad(value, logits)
        logits = (logits - gradient / gradient.abs().max().clamp(min=1e-9) * 0.5).detach().requires_grad_()
    trial.require(loss.scores(logits).argmax(-1) == labels, "the highest score is another class's")
