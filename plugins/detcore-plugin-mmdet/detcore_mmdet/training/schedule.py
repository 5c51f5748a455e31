"""Optimizers and schedules of the learning rate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from detcore_mmdet.options import Options

_CONSTANT = {"type": "StepSchedule", "milestones": [], "warmup_steps": 0}


def optimizer_of(root: Options) -> dict[str, Any] | None:
    """The optimizer of ``optim_wrapper`` (3.x) or ``optimizer`` (2.x)."""
    wrapper = root.options("optim_wrapper")
    o = wrapper.options("optimizer") if wrapper.has("optimizer") else root.options("optimizer")
    if not o.data:
        return None
    if o.type not in ("SGD", "AdamW"):
        o.problem("type", f"the optimizer {o.type!r} has no counterpart in detcore")
        o.take_all()
        return None
    result = {"type": o.type, **o.same("lr", "weight_decay", "nesterov" if o.type == "SGD" else "betas")}
    if o.type == "SGD":
        result["momentum"] = o.take("momentum", 0.0)
        o.only("dampening", 0)
    result.setdefault("weight_decay", 0.0 if o.type == "SGD" else 0.01)
    custom = o if o.has("paramwise_cfg") else wrapper
    return result | _per_parameter(custom.options("paramwise_cfg"))


def _per_parameter(p: Options) -> dict[str, Any]:
    result = p.same("norm_decay_mult", "bias_decay_mult")
    p.only("bias_lr_mult", 1.0)
    p.take("bypass_duplicate")
    keys = p.options("custom_keys")
    backbone = keys.options("backbone")
    if backbone.data:
        result["backbone_lr_mult"] = backbone.take("lr_mult", 1.0)
        backbone.only("decay_mult", 1.0)
    return result


def clipping_of(root: Options) -> dict[str, Any]:
    """Clipping of gradients, accumulation, mixed precision."""
    wrapper, old = root.options("optim_wrapper"), root.options("optimizer_config")
    result: dict[str, Any] = {}
    kind = wrapper.type or "OptimWrapper"
    if kind == "AmpOptimWrapper":
        result["precision"] = "bf16-mixed" if wrapper.take("dtype") == "bfloat16" else "16-mixed"
        wrapper.take("loss_scale")
    elif kind != "OptimWrapper":
        wrapper.problem("type", f"{kind!r} has no counterpart in detcore")
    if wrapper.take("accumulative_counts", 1) > 1:
        result["accumulate"] = wrapper.take("accumulative_counts")
    if root.take("fp16") is not None:
        result["precision"] = "16-mixed"
    clip = wrapper.options("clip_grad") if wrapper.has("clip_grad") else old.options("grad_clip")
    if clip.data:
        clip.only("norm_type", 2)
        result |= {"clip_grad_norm": clip.take("max_norm")} if clip.has("max_norm") else {}
        result |= {"clip_grad_value": clip.take("clip_value")} if clip.has("clip_value") else {}
    return result


def epochs_of(root: Options) -> int | None:
    """The number of epochs; None where the reference counts iterations."""
    loop, runner = root.options("train_cfg"), root.options("runner")
    for o in (loop, runner):
        if "Iter" in o.type or o.has("max_iters"):
            o.problem("type", f"{o.type!r} counts iterations; an experiment of detcore counts epochs")
            o.take_all()
            return None
    loop.take("by_epoch")
    found = loop.take(
        "max_epochs", runner.take("max_epochs", root.take("total_epochs", root.take("max_epochs")))
    )
    return None if found is None else int(found)


def schedule_of(root: Options, epochs: int, lr: float) -> dict[str, Any] | None:
    """The schedule of ``param_scheduler`` (3.x) or ``lr_config`` (2.x)."""
    steps = root.take("param_scheduler")
    if steps is None:
        return _old_schedule(root.options("lr_config"), epochs, lr)
    result, warmup = dict(_CONSTANT), {}
    for i, step in enumerate([steps] if isinstance(steps, Mapping) else steps):
        s = root.nested(f"param_scheduler.{i}", step)
        if s.type in ("LinearLR", "ConstantLR"):
            warmup = _warmup(s)
        elif s.type == "MultiStepLR":
            s.only("by_epoch", True)
            s.only("end", epochs)
            result = {
                "type": "StepSchedule",
                "milestones": list(s.take("milestones", [])),
                "gamma": s.take("gamma", 0.1),
            }
        elif s.type in ("CosineAnnealingLR", "PolyLR"):
            result = _falling(s, epochs, lr)
        else:
            s.problem("type", f"the schedule {s.type!r} has no counterpart in detcore")
            s.take_all()
            return None
        s.take("begin")
        s.finish()
    return {**result, "warmup_steps": 0, **warmup}


def _warmup(s: Options) -> dict[str, Any]:
    s.only("by_epoch", False, remedy="warm-ups are counted in steps")
    s.only("begin", 0)
    s.only("end_factor", 1.0)
    factor = s.take("start_factor", s.take("factor", 1 / 3))
    kind = "linear" if s.type == "LinearLR" else "constant"
    return {
        "warmup_steps": s.take("end", 0),
        "warmup_ratio": factor,
        "warmup": kind,
        "warmup_end": "last_step",
    }


def _falling(s: Options, epochs: int, lr: float) -> dict[str, Any]:
    by_epoch, as_steps = s.take("by_epoch", True), s.take("convert_to_iter_based", False)
    begin, end = s.take("begin", 0), s.take("end", epochs)
    for name in ("T_max", "end", "eta_min_ratio"):
        s.take(name)
    if not by_epoch:
        s.problem("by_epoch", "a fall that is counted in iterations has no counterpart in detcore")
    elif end != epochs:
        s.problem("end", f"the fall ends with epoch {end}, the run with {epochs}")
    lowest = s.take("eta_min_ratio", s.take("eta_min", 0.0) / lr)
    result = {
        "type": "CosineSchedule" if s.type == "CosineAnnealingLR" else "PolySchedule",
        "min_ratio": lowest,
    }
    result |= s.same("power")
    return {**result, "begin": begin / epochs, "by": "step" if as_steps else "epoch"}


def _old_schedule(o: Options, epochs: int, lr: float) -> dict[str, Any] | None:
    """``lr_config``."""
    policy = str(o.take("policy", "fixed")).lower()
    if policy == "step":
        steps = o.take("step", [])
        milestones = list(steps) if isinstance(steps, (list, tuple)) else list(range(steps, epochs, steps))
        result: dict[str, Any] = {
            "type": "StepSchedule",
            "milestones": milestones,
            "gamma": o.take("gamma", 0.1),
        }
        result["milestones"] = [step for step in milestones if step < epochs]
    elif policy in ("cosineannealing", "poly"):
        name = "CosineSchedule" if policy != "poly" else "PolySchedule"
        lowest = o.take("min_lr_ratio", o.take("min_lr", 0.0) / lr)
        result = {"type": name, "min_ratio": lowest, **o.same("power")}
        result["by"] = "epoch" if o.take("by_epoch", True) else "step"
    elif policy == "fixed":
        result = {"type": "StepSchedule", "milestones": []}
    else:
        o.problem("policy", f"the schedule {policy!r} has no counterpart in detcore")
        o.take_all()
        return None
    kind = o.take("warmup")
    o.only("warmup_by_epoch", False)
    length, ratio = o.take("warmup_iters", 0), o.take("warmup_ratio", 0.1)
    if kind is None:
        return {**result, "warmup_steps": 0}
    return {
        **result,
        "warmup": kind,
        "warmup_steps": length,
        "warmup_ratio": ratio,
        "warmup_end": "next_step",
    }
