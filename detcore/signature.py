"""From a constructor's signature to a pydantic model, and from pydantic's errors to ours.

A component's ``__init__`` is the only statement of its parameters: names, types, ranges, defaults. This
module reads it once per class and validates whatever is given for it, whether from Python or from a file.
"""

from __future__ import annotations

import collections.abc
import functools
import inspect
import types
import typing
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union

import pydantic
from pydantic import BeforeValidator, ConfigDict, Strict

from detcore.errors import ComponentDefinitionError, ConfigError, Problem, did_you_mean, join_path

_MISSING = inspect.Parameter.empty
_MODEL_CONFIG = ConfigDict(
    extra="forbid", arbitrary_types_allowed=True, allow_inf_nan=False, protected_namespaces=()
)


@dataclass(frozen=True)
class Wired:
    """Default of a parameter that the owner supplies; made by :func:`wired`."""

    default: Any = _MISSING
    may_override: bool = False


def wired(default: Any = _MISSING, *, may_override: bool = False) -> Any:
    """Marks a constructor parameter as one that only upstream knows (channels, strides, number of classes).

    A spec may leave it out; the owner supplies it when it builds the spec. Without an owner it must be given.

    Args:
        default: The value where neither the caller nor an owner gives one; required when omitted.
        may_override: Whether a spec may state another value than its owner's.
    """
    return Wired(default, may_override)


@dataclass(frozen=True)
class Parameter:
    """One parameter of a component's constructor.

    Args:
        name: Its name.
        annotation: Its resolved annotation, as the author wrote it.
        default: Its default; ``inspect.Parameter.empty`` where it must be given.
        wired: How an owner supplies it, or None for a parameter that the user sets.
    """

    name: str
    annotation: Any
    default: Any
    wired: Wired | None

    @property
    def required(self) -> bool:
        """Whether there is no default."""
        return self.default is _MISSING

    @property
    def is_part(self) -> bool:
        """Whether its values are components, or collections of them."""
        return _mentions_component(self.annotation)


class Signature:
    """The parameters of one component class and the pydantic model derived from them.

    Args:
        component: The class.

    Raises:
        ComponentDefinitionError: A parameter is positional, variadic, unannotated, or defaults to a mutable.
    """

    def __init__(self, component: type) -> None:
        self.component = component
        self.title = component.__name__
        self.parameters: dict[str, Parameter] = {p.name: p for p in _read_parameters(component)}

    @functools.cached_property
    def model(self) -> type[pydantic.BaseModel]:
        """The pydantic model of the parameters: extras forbidden, ranges and choices as annotated."""
        fields: dict[str, Any] = {p.name: (harden(p.annotation), None) for p in self.parameters.values()}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a parameter may be called like a method of BaseModel
            return pydantic.create_model(self.title, __config__=_MODEL_CONFIG, **fields)

    def validate(self, given: Mapping[str, Any], *, complete: bool) -> dict[str, Any]:
        """The given values, coerced to the annotated types; nothing is added.

        Args:
            given: Values by parameter name.
            complete: Whether wired parameters must be there too.

        Raises:
            ConfigError: Unknown, missing or invalid parameters: all of them at once.
        """
        problems = [self._unknown(name) for name in given if name not in self.parameters]
        problems += self._missing(given, complete)
        try:
            values = self.coerce({name: value for name, value in given.items() if name in self.parameters})
        except ConfigError as error:
            problems += error.problems
        if problems:
            raise ConfigError(problems, self.title)
        return values

    def coerce(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Some of the parameters' values, coerced to the annotated types; others may be missing.

        Raises:
            ConfigError: A value is invalid: all of them at once.
        """
        try:
            checked = self.model.__pydantic_validator__.validate_python(dict(given))
        except pydantic.ValidationError as error:
            raise ConfigError(_problems(error, given), self.title) from None
        return {name: checked.__dict__[name] for name in given}

    def defaults(self) -> dict[str, Any]:
        """The values of the parameters that have one without being given."""
        return {p.name: p.default for p in self.parameters.values() if not p.required}

    def _unknown(self, name: object) -> Problem:
        near = did_you_mean(name, self.parameters)
        takes = f"{self.title} takes {', '.join(self.parameters) or 'no parameters'}"
        return Problem(str(name), f"unknown parameter {name!r}", f"{near} {takes}".strip())

    def _missing(self, given: Mapping[str, Any], complete: bool) -> Iterator[Problem]:
        for parameter in self.parameters.values():
            if parameter.name in given or not parameter.required:
                continue
            if parameter.wired is None:
                yield Problem(parameter.name, f"required parameter of {self.title} is missing")
            elif complete:
                remedy = f"give it, or use {self.title}.spec(...) inside a component that supplies it"
                yield Problem(parameter.name, f"{self.title} needs it from its owner, and has none", remedy)


def signature_of(component: type) -> Signature:
    """The signature of a component class, read once."""
    return _signature_of(component)


@functools.cache
def _signature_of(component: Any) -> Signature:
    return Signature(component)


def check_definition(component: type, init: Any) -> None:
    """Checks, as a class is defined, what can be checked without resolving annotations.

    Raises:
        ComponentDefinitionError: The constructor cannot be validated.
    """
    for parameter in list(inspect.signature(init).parameters.values())[1:]:
        where = f"{component.__qualname__}.__init__: parameter {parameter.name!r}"
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
            raise ComponentDefinitionError(f"{where} must be keyword-only and named: put it after a bare `*`")
        if parameter.annotation is _MISSING:
            raise ComponentDefinitionError(
                f"{where} has no annotation; its type is what values are checked by"
            )
        if parameter.name == "type":
            raise ComponentDefinitionError(
                f"{where} must be called otherwise: 'type' names the component in files"
            )
        if parameter.name.startswith("_"):
            raise ComponentDefinitionError(f"{where} starts with an underscore; parameters are public")
        _check_default(where, parameter.default)


def _check_default(where: str, default: Any) -> None:
    if isinstance(default, Wired):
        default = default.default
    if isinstance(default, (list, dict, set, bytearray)):
        raise ComponentDefinitionError(f"{where} has a mutable default; use a tuple, or None")
    cls = type(default)
    if getattr(cls.__init__, "_validates", False):
        raise ComponentDefinitionError(f"{where} defaults to an instance; use {cls.__name__}.spec(...)")


def _read_parameters(component: type) -> Iterator[Parameter]:
    init = inspect.unwrap(component.__init__)  # type: ignore[misc]
    check_definition(component, init)  # it may have been put there after the class was defined
    try:
        hints = typing.get_type_hints(init, include_extras=True)
    except Exception as cause:
        raise ComponentDefinitionError(
            f"{component.__qualname__}.__init__: the annotations cannot be resolved ({cause}); "
            "import their types at run time, not under TYPE_CHECKING"
        ) from cause
    for parameter in list(inspect.signature(init).parameters.values())[1:]:
        default, wiring = parameter.default, None
        if isinstance(default, Wired):
            wiring, default = default, default.default
        yield Parameter(parameter.name, hints[parameter.name], default, wiring)


# ---------------------------------------------------------------------------------------------- annotations


def _reject_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("input should be a number, not a boolean")
    return value


def _literal_number(choices: tuple[Any, ...], value: Any) -> Any:
    """Lets "50" stand for 50 among literal integers, as it does for an int, but not True for 1."""
    if isinstance(value, bool) and not any(choice is value for choice in choices):
        raise ValueError(f"input should be one of {', '.join(map(repr, choices))}")
    if isinstance(value, str) and value not in choices:
        return next((c for c in choices if type(c) is int and str(c) == value), value)
    return value


def harden(annotation: Any) -> Any:
    """The annotation as it is validated: strict booleans, numbers that are no booleans, one schema per part.

    ``X | Spec[X]`` collapses to ``X``: a component class validates instances, specs and mappings alike.
    """
    if type(annotation).__name__ == "TypeAliasType":  # type X = ...
        return harden(annotation.__value__)
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is bool:
        return Annotated[bool, Strict()]
    if annotation in (int, float):
        return Annotated[annotation, BeforeValidator(_reject_bool)]
    if origin is Literal:
        return Annotated[annotation, BeforeValidator(functools.partial(_literal_number, args))]
    if origin is Annotated:
        base, *metadata = args
        hard = harden(base)
        inner = typing.get_args(hard)[1:] if typing.get_origin(hard) is Annotated else ()
        base = typing.get_args(hard)[0] if inner else hard
        return functools.reduce(lambda a, m: Annotated[a, m], (*metadata, *inner), base)
    if origin in (Union, types.UnionType):
        members = [harden(a) for a in args if not _is_spec_of(a, args)]
        return Union[tuple(members)]  # noqa: UP007 - the members are known at run time only
    if origin in (tuple, list, dict, set, frozenset, collections.abc.Sequence, collections.abc.Mapping):
        return origin[tuple(a if a is ... else harden(a) for a in args)]
    return annotation


def _mentions_component(annotation: Any) -> bool:
    # by attribute: components are defined on top of this module
    if isinstance(annotation, type) and hasattr(annotation, "kind") and hasattr(annotation, "spec"):
        return True
    return _is_spec(annotation) or any(map(_mentions_component, typing.get_args(annotation)))


def _is_spec_of(annotation: Any, classes: tuple[Any, ...]) -> bool:
    """Whether the annotation is ``Spec[X]`` with X, or every member of a union X, among ``classes``."""
    if not _is_spec(annotation):
        return False
    (described,) = typing.get_args(annotation)
    members = typing.get_args(described) or (described,)
    return set(members) <= set(classes)


def _is_spec(annotation: Any) -> bool:
    return getattr(typing.get_origin(annotation), "is_spec_class", False)


# --------------------------------------------------------------------------------------------------- errors


@dataclass(frozen=True)
class _Finding:
    """What one branch of a parameter's annotation has against a value.

    Args:
        problem: The problem, without the value.
        got: The value; empty where the message says enough.
    """

    problem: Problem
    got: str = ""


def _problems(error: pydantic.ValidationError, given: Mapping[str, Any]) -> list[Problem]:
    """Pydantic's line errors as ours: nested errors unfolded, the branches of unions merged."""
    findings = [finding for line in error.errors(include_url=False) for finding in _findings(line, given)]
    # A branch of a union that got deeper into the value knows better what is wrong with it.
    paths = {finding.problem.path for finding in findings}
    branches: dict[str, list[_Finding]] = {}
    for finding in findings:
        path = finding.problem.path
        if not any(other.startswith(f"{path}.") for other in paths):
            branches.setdefault(path, []).append(finding)
    return [_merged(path, findings) for path, findings in branches.items()]


def _findings(line: Any, given: Mapping[str, Any]) -> Iterator[_Finding]:
    path = _path_of(line, given)
    cause = line.get("ctx", {}).get("error")
    if isinstance(cause, ConfigError):  # from a part
        yield from (_Finding(problem) for problem in cause.below(path).problems)
    elif line["type"] == "missing":
        yield _Finding(Problem(path, "is missing"))
    elif line["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        yield _Finding(Problem(path, "unknown key"))
    else:
        message = line["msg"].removeprefix("Value error, ")
        yield _Finding(Problem(path, f"{message[0].lower()}{message[1:]}"), short(line["input"]))


def _path_of(line: Any, given: Mapping[str, Any]) -> str:
    """Where in the given values the error is; pydantic's location also names the branches of unions."""
    path: list[Any] = []
    value: Any = given
    absent = line["loc"][-1:] if line["type"] == "missing" else ()
    for step in line["loc"][: len(line["loc"]) - len(absent)]:
        is_item = isinstance(value, (list, tuple)) and isinstance(step, int) and step < len(value)
        if is_item or (isinstance(value, Mapping) and step in value):
            path.append(step)
            value = value[step]
    return join_path(*path, *absent)


def _merged(path: str, findings: list[_Finding]) -> Problem:
    """One problem of what several branches have against the same value."""
    messages = dict.fromkeys(finding.problem.message for finding in findings)
    remedies = dict.fromkeys(finding.problem.remedy for finding in findings if finding.problem.remedy)
    got = next((finding.got for finding in findings if finding.got), "")
    text = " or ".join(messages)
    return Problem(path, f"{text}; got {got}" if got else text, " or ".join(remedies))


def short(value: Any, limit: int = 80) -> str:
    """``repr`` of a value, cut where it is long."""
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."
