"""Learning rates at each iteration against MMDetection's (mmengine) and mmcv 1.x's."""

from __future__ import annotations

import pytest

from detcore.testing.goldens import missing, read, task_cases

detcore_train = pytest.importorskip("detcore_train")
pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())


def linear(scheduler):
    kinds = {"LinearLR": ("linear", "start_factor"), "ConstantLR": ("constant", "factor")}
    warmup, ratio = kinds[scheduler["type"]]
    return {"warmup": warmup, "warmup_ratio": scheduler[ratio], "warmup_steps": scheduler["end"]}


def build(case, epochs):
    """Our schedule for the reference's list of schedulers."""
    if "policy" in case["args"]:
        args = case["args"]
        return detcore_train.StepSchedule(
            milestones=tuple(args["step"]),
            warmup=args["warmup"],
            warmup_steps=args["warmup_iters"],
            warmup_ratio=args["warmup_ratio"],
            warmup_end="next_step",
        )
    *warm, main = case["args"]["schedulers"]
    total = epochs * case["call"]["iters_per_epoch"]
    options = linear(warm[0]) if warm else {"warmup_steps": 0}
    if main["type"] == "MultiStepLR":
        scale = 1 if main["by_epoch"] else 1 / total
        milestones = tuple(m * scale for m in main["milestones"])
        return detcore_train.StepSchedule(milestones=milestones, gamma=main["gamma"], **options)
    options |= {
        "by": "epoch" if main["by_epoch"] else "step",
        "min_ratio": main["eta_min"] / case["call"]["base_lr"],
        "begin": main["begin"] / main["end"],
    }
    if main["type"] == "CosineAnnealingLR":
        return detcore_train.CosineSchedule(chained=True, **options)
    return detcore_train.PolySchedule(power=main["power"], **options)


@pytest.mark.parametrize("case", task_cases("schedule"), ids=lambda case: case["id"])
def test_learning_rate(case):
    per_epoch, base = case["call"]["iters_per_epoch"], case["call"]["base_lr"]
    epochs = case["call"].get("epochs", 12)
    schedule = build(case, epochs)
    iterations = read(case, "inputs")["iters"].tolist()
    expected = read(case, "outputs")["lr64"].tolist()
    assert len(iterations) == len(expected) > 10
    for step, lr in zip(iterations, expected, strict=True):
        progress = detcore_train.interfaces.Progress(step, per_epoch, epochs)
        assert base * schedule.factor(progress) == pytest.approx(lr, rel=1e-9), step


@pytest.mark.parametrize(("epochs", "wanted"), [(12, "mmengine.1x"), (24, "mmengine.2x")])
def test_the_default_schedule_is_1x_and_2x(epochs, wanted):
    (case,) = (case for case in task_cases("schedule") if case["id"].endswith(wanted))
    per_epoch, base = case["call"]["iters_per_epoch"], case["call"]["base_lr"]
    schedule = detcore_train.StepSchedule()
    iterations, expected = read(case, "inputs")["iters"].tolist(), read(case, "outputs")["lr64"].tolist()
    found = [
        base * schedule.factor(detcore_train.interfaces.Progress(i, per_epoch, epochs)) for i in iterations
    ]
    assert found == pytest.approx(expected, rel=1e-9)
