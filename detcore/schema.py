"""JSON Schema of configurations, derived from the signatures of the installed components."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter

from detcore import registry
from detcore.component import INTERFACE_MARK, Component, Spec
from detcore.describe import argument_docs
from detcore.errors import BrokenPluginError
from detcore.serialize import dump
from detcore.signature import Parameter, harden, signature_of

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def json_schema(name: str, kind: str | None = None) -> dict[str, Any]:
    """The schema of a configuration whose root is the component ``name``, with all that it may contain.

    Broken plugins are left out.

    Args:
        name: Bare or ``distribution:Name``.
        kind: Where to look it up; every kind where None.

    Raises:
        UnknownComponentError: No such component is installed.
        BrokenPluginError: The root itself cannot be loaded.
    """
    component = registry.resolve(kind, name)
    writer = _Writer()
    root = writer.component(component)
    root["properties"]["extends"] = {
        "description": "A base file or recipe, or a list of them.",
        "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
    }
    # a file with a base, or overridden on the command line, may leave out what is required in the whole
    root["required"] = []
    return {"$schema": DIALECT, "title": component.__name__, **root, "$defs": writer.definitions}


class _Writer:
    def __init__(self) -> None:
        self.definitions: dict[str, Any] = {}

    def component(self, component: type[Component]) -> dict[str, Any]:
        signature = signature_of(component)
        entry = registry.current().entry_of(component)
        names = [component.__name__, entry.qualified] if entry else [component.__name__]
        documentation = inspect.getdoc(component) or component.__name__
        described = argument_docs(documentation)
        properties: dict[str, Any] = {"type": {"enum": names}}
        for parameter in signature.parameters.values():
            properties[parameter.name] = self.parameter(parameter, described.get(parameter.name, ""))
        required = [p.name for p in signature.parameters.values() if p.required and p.wired is None]
        return {
            "description": documentation.splitlines()[0],
            "type": "object",
            "properties": properties,
            "required": ["type", *required],
            "additionalProperties": False,
        }

    def parameter(self, parameter: Parameter, description: str) -> dict[str, Any]:
        schema = TypeAdapter(
            harden(parameter.annotation), config={"arbitrary_types_allowed": True}
        ).json_schema()
        self.definitions |= {name: self.resolve(body) for name, body in schema.pop("$defs", {}).items()}
        result = self.resolve(schema)
        if description:
            result["description"] = description
        if not parameter.required:
            result["default"] = _plain(parameter.default)
        return dict(result)

    def resolve(self, schema: Any) -> Any:
        """The schema with each mark of an interface replaced by a reference to its components."""
        if isinstance(schema, list):
            return [self.resolve(item) for item in schema]
        if not isinstance(schema, Mapping):
            return schema
        if INTERFACE_MARK in schema:
            return {"$ref": f"#/$defs/{self.interface(schema[INTERFACE_MARK])}"}
        return {key: self.resolve(item) for key, item in schema.items()}

    def interface(self, interface: type[Component]) -> str:
        name = interface.__name__
        if name not in self.definitions:
            self.definitions[name] = {}  # interfaces may contain themselves
            choices = [self.reference(c) for c in _components(interface)]
            self.definitions[name] = {"oneOf": choices} if choices else {"type": "object"}
        return name

    def reference(self, component: type[Component]) -> dict[str, str]:
        entry = registry.current().entry_of(component)
        name = entry.qualified.replace(":", ".") if entry else component.__name__
        if name not in self.definitions:
            self.definitions[name] = {}
            self.definitions[name] = self.component(component)
        return {"$ref": f"#/$defs/{name}"}


def _components(interface: type[Component]) -> list[type[Component]]:
    found = []
    for entry in registry.entries(getattr(interface, "kind", None)):
        try:
            component = registry.current().load(entry)
        except BrokenPluginError:
            continue
        if issubclass(component, interface):
            found.append(component)
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, Spec):
        return dump(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value
