"""What there is to know about a component class: read from its signature, its docstring and the registry."""

from __future__ import annotations

import collections.abc
import importlib
import inspect
import re
import types
import typing
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal, Union

from pydantic.fields import FieldInfo

from detcore import registry
from detcore.component import Component, Spec
from detcore.signature import Parameter, signature_of

#: How bounds of annotated_types are written.
_BOUNDS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<", "multiple_of": "multiple of"}
_LENGTHS = {"min_length": "at least", "max_length": "at most"}


@dataclass(frozen=True)
class ParameterDescription:
    """One parameter.

    Args:
        name: Its name.
        type: Its type as text, without the bounds.
        default: Its default as Python; empty where there is none.
        constraint: Its bounds, as text.
        doc: What its class's docstring says of it.
        wired: Whether an owner supplies it.
    """

    name: str
    type: str
    default: str
    constraint: str
    doc: str
    wired: bool

    @property
    def required(self) -> bool:
        """Whether a user must give it."""
        return not self.default and not self.wired


@dataclass(frozen=True)
class Description:
    """A component.

    Args:
        name: Its class's name.
        kind: What it is.
        interface: The interface's name.
        api_version: The interface's version.
        distribution: Who registers it, with the version; empty where nobody does.
        target: ``module:Class``.
        file: Where it is defined, ``file:line``.
        summary: First line of its docstring.
        text: The rest of the docstring, without the arguments and the errors.
        papers: Paragraphs of the docstring that name a paper.
        links: Addresses of these papers.
        parameters: In the constructor's order.
        python: How to use it in Python.
        yaml: How to use it in YAML.
    """

    name: str
    kind: str
    interface: str
    api_version: int
    distribution: str
    target: str
    file: str
    summary: str
    text: str
    papers: tuple[str, ...]
    links: tuple[str, ...]
    parameters: tuple[ParameterDescription, ...]
    python: str
    yaml: str

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


def describe(component: type[Component]) -> Description:
    """Describes a component class.

    Args:
        component: The class; registered or not.

    Raises:
        ComponentDefinitionError: Its constructor cannot be read.
    """
    entry = registry.current().entry_of(component)
    interface = next(base for base in component.__mro__ if "kind" in vars(base))
    documentation = inspect.getdoc(component) or component.__name__
    summary, _, body = documentation.partition("\n")
    text = _without_sections(body)
    papers = [" ".join(p.split()).removeprefix("Source: ") for p in text.split("\n\n") if "arXiv" in p]
    links = re.findall(r"arXiv[:\s]\s*([0-9]{4}\.[0-9]{4,5})", documentation)
    described = argument_docs(documentation)
    parameters = tuple(
        _parameter(p, described.get(p.name, "")) for p in signature_of(component).parameters.values()
    )
    return Description(
        name=component.__name__,
        kind=component.kind,
        interface=interface.__name__,
        api_version=component.api_version,
        distribution=f"{entry.distribution} {entry.version}" if entry else "",
        target=f"{component.__module__}:{component.__qualname__}",
        file=_place(component),
        summary=summary,
        text=text.strip(),
        papers=tuple(papers),
        links=tuple(f"https://arxiv.org/abs/{number}" for number in dict.fromkeys(links)),
        parameters=parameters,
        python=_python(component, parameters),
        yaml=_yaml(entry.name if entry else component.__name__, parameters),
    )


def _place(component: type) -> str:
    try:
        return f"{inspect.getsourcefile(component)}:{inspect.getsourcelines(component)[1]}"
    except (OSError, TypeError):  # made in a session, or without a source file
        return ""


def _python(component: type[Component], parameters: tuple[ParameterDescription, ...]) -> str:
    name, top = component.__name__, component.__module__.partition(".")[0]
    # the shortest public import: a package's own re-export, if it has one
    exported = getattr(importlib.import_module(top), name, None) is component
    arguments = ", ".join(f"{p.name}=..." for p in parameters if p.required)
    spec = ".spec" if any(p.wired for p in parameters) else ""
    return f"from {top if exported else component.__module__} import {name}\n\n{name}{spec}({arguments})"


def _yaml(name: str, parameters: tuple[ParameterDescription, ...]) -> str:
    return "\n".join([f"type: {name}", *(f"{p.name}:  # {p.type}" for p in parameters if p.required)])


def _parameter(parameter: Parameter, doc: str) -> ParameterDescription:
    return ParameterDescription(
        name=parameter.name,
        type=type_text(parameter.annotation),
        default="" if parameter.required else repr(parameter.default),
        constraint=", ".join(dict.fromkeys(_constraints(parameter.annotation))),
        doc=doc,
        wired=parameter.wired is not None,
    )


def type_text(annotation: Any) -> str:
    """An annotation as a reader would write it: without bounds, and a part as its interface."""
    if type(annotation).__name__ == "TypeAliasType":  # type X = ...
        return type_text(annotation.__value__)
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return type_text(args[0])
    if origin in (Union, types.UnionType):
        return " | ".join(dict.fromkeys(type_text(a) for a in args if typing.get_origin(a) is not Spec))
    if origin is Literal:
        return " | ".join(map(repr, args))
    if origin is collections.abc.Callable:
        return "Callable"
    if annotation in (None, type(None)):
        return "None"
    if annotation is ...:
        return "..."
    name = getattr(origin or annotation, "__name__", None) or str(annotation)
    return f"{name}[{', '.join(map(type_text, args))}]" if args else name


def _constraints(annotation: Any) -> Iterator[str]:
    """Every bound in an annotation, at any depth."""
    for item in getattr(annotation, "__metadata__", ()):
        for bound in item.metadata if isinstance(item, FieldInfo) else (item,):
            yield from (f"{s} {getattr(bound, a)}" for a, s in _BOUNDS.items() if hasattr(bound, a))
            yield from (f"{s} {getattr(bound, a)} long" for a, s in _LENGTHS.items() if hasattr(bound, a))
    if typing.get_origin(annotation) is not Literal:
        for inner in typing.get_args(annotation):
            yield from _constraints(inner)


def argument_docs(documentation: str) -> dict[str, str]:
    """The entries of a Google-style ``Args:`` section."""
    result: dict[str, str] = {}
    inside, name = False, ""
    for line in documentation.splitlines():
        indent = len(line) - len(line.lstrip())
        if line.strip() == "Args:":
            inside = True
        elif inside and line.strip() and indent == 0:
            break
        elif inside and indent == 4 and ":" in line:
            name, _, text = line.strip().partition(":")
            result[name] = text.strip()
        elif inside and indent > 4 and name:
            result[name] += " " + line.strip()
    return result


def _without_sections(text: str) -> str:
    """A docstring's paragraphs; what stands indented below ``Args:``, ``Raises:`` and the like left out."""
    kept, inside = [], False
    for line in text.splitlines():
        if re.fullmatch(r"(Args|Raises|Returns|Attributes|Example|Examples):", line):
            inside = True
        elif line and not line.startswith(" "):
            inside = False
        if not inside:
            kept.append(line)
    return "\n".join(kept)
