"""Checks of every component, whatever it does."""

from __future__ import annotations

import copy
import inspect
import pickle
from typing import Any

import torch
from pydantic import TypeAdapter
from pydantic.errors import PydanticInvalidForJsonSchema
from torch import nn

from detcore import config as files
from detcore import registry
from detcore.component import Component, arguments_of, walk
from detcore.errors import ConfigError
from detcore.serialize import build, dump
from detcore.signature import harden, signature_of
from detcore.testing.checking import Trial, check, run_probe
from detcore.testing.compare import ATOL, RTOL, difference, snapshot, tensors
from detcore.testing.errors import NotApplicableError
from detcore.testing.registries import registered


def _stable_result(trial: Trial, component: Component) -> Any:
    """What the component gives, or None where that is not known or never the same twice."""
    try:
        first = run_probe(copy.deepcopy(component), trial)
        second = run_probe(copy.deepcopy(component), trial)
    except Exception:  # what is wrong with the work itself is for other checks to say
        return None
    return first if difference(second, first, rtol=RTOL, atol=ATOL) is None else None


def _alike(trial: Trial, other: Component, original: Component, what: str) -> None:
    """Fails where a remade component has other arguments, weights or results than the original."""
    trial.require(type(other) is type(original), f"{what} is a {type(other).__name__}")
    for (path, one), (there, two) in zip(walk(other), walk(original), strict=True):
        trial.require(path == there and type(one) is type(two), f"{what} has other parts, at {path or there}")
        ours, theirs = arguments_of(one).values, arguments_of(two).values
        trial.require(ours == theirs, f"{what} has other arguments, at {path or 'its root'}")
    if isinstance(original, nn.Module) and isinstance(other, nn.Module):
        trial.same(_state(other), _state(original), f"{what}: state_dict", rtol=0, atol=0)
    expected = _stable_result(trial, original)
    if expected is not None:
        trial.same(run_probe(other, trial), expected, f"{what} gives something else")


def _state(module: nn.Module) -> dict[str, Any]:
    """The state without nesting, since names in it hold dots."""
    return {name.replace(".", "/"): value for name, value in module.state_dict().items()}


@check(Component)
def component_config_round_trip(trial: Trial) -> None:
    """Its dumped configuration, written to YAML and read back, builds the same component."""
    original = trial.component()
    classes = [type(part) for _, part in walk(original) if registry.current().entry_of(type(part)) is None]
    with registered(*dict.fromkeys(classes)), torch.random.fork_rng(devices=[]):
        content = dump(original)
        text = files.to_yaml(content)
        again = files.parse_yaml(text, "conformance").data
        trial.require(
            again == content, f"its configuration is not the same after YAML: {again} for {content}"
        )
        torch.manual_seed(0)
        rebuilt = build(again)
        trial.same(_flat(dump(rebuilt)), _flat(content), "the rebuilt component's configuration")
    if isinstance(rebuilt, nn.Module):
        shapes = {name: tuple(value.shape) for name, value in rebuilt.state_dict().items()}
        expected = {name: tuple(value.shape) for name, value in original.state_dict().items()}
        trial.require(shapes == expected, "the rebuilt component has other weights")
        rebuilt.load_state_dict(original.state_dict())
    wanted = _stable_result(trial, original)
    if wanted is not None:
        trial.same(run_probe(rebuilt, trial), wanted, "the rebuilt component gives something else")


def _flat(content: Any) -> dict[str, Any]:
    return {path.replace(".", "/"): value for path, value in files.leaves(content)}


@check(Component)
def component_pickles(trial: Trial) -> None:
    """It can be pickled, and what comes back is the same."""
    original = trial.component()
    _alike(trial, pickle.loads(pickle.dumps(original)), original, "the unpickled component")


@check(Component)
def component_copies(trial: Trial) -> None:
    """It can be deep-copied; the copy is the same and shares no memory with it."""
    original = trial.subject.build()
    copied = copy.deepcopy(original)
    if isinstance(original, nn.Module):
        ours = {value.data_ptr() for value in copied.state_dict().values() if value.numel()}
        theirs = {value.data_ptr() for value in original.state_dict().values() if value.numel()}
        trial.require(not ours & theirs, "the copy shares memory with the original")
    _alike(trial, copied, original, "the copy")


@check(Component)
def component_state_round_trip(trial: Trial) -> None:
    """Its state_dict, loaded into another instance, makes that one the same."""
    original = trial.component()
    if not isinstance(original, nn.Module) or not original.state_dict():
        trial.skip("it has no state")
    with torch.no_grad():
        for tensor in original.state_dict().values():
            if tensor.is_floating_point():
                tensor.mul_(0.9).add_(0.01)
    state = copy.deepcopy(original.state_dict())
    other = trial.component()
    other.load_state_dict(state)
    trial.same(_state(other), _state(original), "the state after loading", rtol=0, atol=0)
    wanted = _stable_result(trial, original)
    if wanted is not None:
        trial.same(run_probe(other, trial), wanted, "with the state of another it gives something else")


@check(Component)
def component_instances_are_independent(trial: Trial) -> None:
    """Two components of one spec share nothing that can change."""
    one, two = trial.subject.build(), trial.subject.build()
    parts = {id(part) for _, part in walk(one)} & {id(part) for _, part in walk(two)}
    trial.require(not parts, "two components of one spec have a part in common")
    ours = {id(value) for value in _mutable(one)} & {id(value) for value in _mutable(two)}
    trial.require(not ours, "two components of one spec share a list, dict, set or tensor")


def _mutable(component: Component) -> list[Any]:
    values = list(vars(component).values())
    found: list[Any] = [value for value in values if isinstance(value, (list, dict, set))]
    if isinstance(component, nn.Module):
        found += [value for value in component.state_dict(keep_vars=True).values() if value.numel()]
    return found + tensors([value for value in values if isinstance(value, torch.Tensor)])


@check(Component)
def component_construction_is_seeded(trial: Trial) -> None:
    """Built twice from one state of torch's generator, it has the same weights."""
    one, two = trial.subject.build(), trial.subject.build()
    if not isinstance(one, nn.Module):
        trial.skip("it has no weights")
    trial.same(_state(two), _state(one), "the second one's state_dict", rtol=0, atol=0)


@check(Component)
def component_leaves_torch_alone(trial: Trial) -> None:
    """Building it, and having it work, changes none of torch's global settings."""
    original = _settings()
    plain = {**original, "default dtype": torch.float32, "gradients": True, "deterministic": False}
    plain |= {"anomalies": False, "benchmark": False}
    try:
        _apply(plain)  # else what an earlier instance has set would not be noticed
        component = trial.subject.build()
        trial.same(_settings(), plain, "after it was built, torch's setting")
        try:
            run_probe(component, trial)
        except NotApplicableError:
            return
        trial.same(_settings(), plain, "after it has worked, torch's setting")
    finally:
        _apply(original)


def _settings() -> dict[str, Any]:
    return {
        "default dtype": torch.get_default_dtype(),
        "gradients": torch.is_grad_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "anomalies": torch.is_anomaly_enabled(),
        "threads": torch.get_num_threads(),
        "benchmark": torch.backends.cudnn.benchmark,
    }


def _apply(settings: dict[str, Any]) -> None:
    torch.set_default_dtype(settings["default dtype"])
    torch.set_grad_enabled(settings["gradients"])
    torch.use_deterministic_algorithms(settings["deterministic"])
    torch.autograd.set_detect_anomaly(settings["anomalies"])
    torch.set_num_threads(settings["threads"])
    torch.backends.cudnn.benchmark = settings["benchmark"]


@check(Component)
def component_is_deterministic(trial: Trial) -> None:
    """From one random state it gives the same result twice."""
    first = run_probe(trial.component(), trial)
    first = snapshot(first)
    second = snapshot(run_probe(trial.component(), trial))
    trial.same(second, first, "the second result")


@check(Component)
def component_is_described(trial: Trial) -> None:
    """It has a docstring, and a JSON Schema can be derived from its constructor."""
    component = trial.subject.type
    trial.require(bool(component.__dict__.get("__doc__")), "its class has no docstring")
    summary = (inspect.getdoc(component) or "").strip().splitlines()
    trial.require(bool(summary), "its docstring is empty")
    for parameter in signature_of(component).parameters.values():
        try:
            TypeAdapter(harden(parameter.annotation), config={"arbitrary_types_allowed": True}).json_schema()
        except PydanticInvalidForJsonSchema as error:
            trial.fail(f"the type of {parameter.name} has no schema: {error}")


@check(Component)
def component_refuses_unknown_parameters(trial: Trial) -> None:
    """A parameter that it does not have is refused, not ignored."""
    recipe = trial.subject.recipe()
    try:
        recipe.replace(detcore_conformance_unknown=1)
    except ConfigError:
        return
    trial.fail("it accepts a parameter that it does not have")
