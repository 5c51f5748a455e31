"""What a new plugin is called, and what its component is made from."""

from __future__ import annotations

import importlib
import importlib.util
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from detcore import registry
from detcore.api import INTERFACE_VERSIONS
from detcore.errors import BrokenPluginError, ConfigError, UnknownComponentError, did_you_mean

PREFIX = "detcore-plugin-"
TEMPLATES = Path(__file__).parent / "templates"
#: What a component of these kinds starts from: composed of so much that a new one is a variation at first.
BASES = {
    "data_modules": "DetectionData",
    "detectors": "SingleStageDetector",
    "experiments": "Experiment",
    "roi_heads": "StandardRoIHead",
}
#: Interfaces whose names do not follow from their kinds.
_SUFFIXES = {
    "bbox_coders": "BBoxCoder",
    "bbox_heads": "BBoxHead",
    "losses": "Loss",
    "match_costs": "Cost",
    "roi_extractors": "RoIExtractor",
    "roi_heads": "RoIHead",
}


@dataclass(frozen=True)
class Plan:
    """A plugin that is to be written.

    Args:
        kind: Of its component.
        component: The component's class name.
        module: The module that it stands in.
        package: The import package.
        distribution: The distribution's name.
        api: The interface version that it is built for.
        source: The module's text.
        dependencies: Distributions that it needs beside the core.
    """

    kind: str
    component: str
    module: str
    package: str
    distribution: str
    api: int
    source: str
    dependencies: tuple[str, ...]

    def filled(self, text: str) -> str:
        """A template's text with the names put in."""
        names = {
            "MyComponent": self.component,
            "my_component": self.module,
            "my_package": self.package,
            "my-distribution": self.distribution,
            "my_kind": self.kind,
        }
        return re.sub("|".join(names), lambda found: names[found.group()], text)


def plan(name: str, kind: str, component: str = "") -> Plan:
    """Decides on everything, and checks that the names are free.

    Args:
        name: The topic, with or without ``detcore-plugin-``.
        kind: In the singular or plural.
        component: The class's name; made from the topic where empty.

    Raises:
        ConfigError: A name cannot be used, or is taken.
        UnknownComponentError: There is no such kind.
    """
    kind = find_kind(kind)
    topic = registry.normalise(name).removeprefix(PREFIX)
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", topic):
        raise ConfigError(
            f"{name!r} cannot name a plugin; use letters, digits and dashes, beginning with a letter"
        )
    component = component or _class_name(topic, kind)
    if not component.isidentifier() or not component[0].isupper():
        raise ConfigError(f"{component!r} cannot name a class; use CamelCase, as in MaxIoUAssigner")
    package, distribution = f"detcore_{topic.replace('-', '_')}", f"{PREFIX}{topic}"
    if importlib.util.find_spec(package) is not None:
        raise ConfigError(f"a package {package} is installed already; choose another name than {name!r}")
    source, api = _source(kind)
    module = _module_name(component)
    dependencies = distributions_in(source)
    made = Plan(kind, component, module, package, distribution, api, source, dependencies)
    return replace(made, source=made.filled(source))


def find_kind(text: str) -> str:
    """The kind that is meant by its name in the singular or plural.

    Raises:
        UnknownComponentError: There is none.
    """
    known = sorted({*INTERFACE_VERSIONS, *registry.kinds()})
    word = text.strip().lower().replace("-", "_")
    for candidate in (word, f"{word}s", f"{word}es"):
        if candidate in known:
            return candidate
    near = did_you_mean(word, known)
    raise UnknownComponentError(f"there is no kind {text!r}; {near or 'kinds: ' + ', '.join(known)}")


def _class_name(topic: str, kind: str) -> str:
    own = "".join(part.title() for part in topic.split("-"))
    singular = re.sub(r"(?<!s)s$", "", kind)
    suffix = _SUFFIXES.get(kind) or "".join(part.title() for part in singular.split("_"))
    return own if own.lower().endswith(suffix.lower()) else own + suffix


def _source(kind: str) -> tuple[str, int]:
    """The template of a kind and the version of its interface."""
    file = TEMPLATES / "components" / f"{kind}.py.txt"
    if file.is_file() and kind in INTERFACE_VERSIONS:
        return file.read_text(encoding="utf-8"), INTERFACE_VERSIONS[kind]
    base = base_of(kind)
    if file.is_file():
        return file.read_text(encoding="utf-8"), base.api_version
    text = (TEMPLATES / "components" / "_variation.py.txt").read_text(encoding="utf-8")
    top = base.__module__.partition(".")[0]
    exported = getattr(importlib.import_module(top), base.__name__, None) is base
    text = text.replace("BASE_MODULE", top if exported else base.__module__)
    return text.replace("BASE_CLASS", base.__name__), base.api_version


def _module_name(component: str) -> str:
    words = component.replace("BBox", "Bbox").replace("RoI", "Roi")
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", words).lower()


def base_of(kind: str) -> type[Any]:
    """A component of a kind that can be used, to begin with."""
    entries = sorted(registry.entries(kind), key=lambda entry: entry.name != BASES.get(kind))
    for entry in entries:
        try:
            loaded: type[Any] = registry.current().load(entry)
            return loaded
        except BrokenPluginError:
            continue
    raise UnknownComponentError(
        f"no component of kind {kind!r} can be loaded to start from; install a package that has one"
    )


def distributions_in(source: str, known: Iterable[str] = ()) -> tuple[str, ...]:
    """The distributions, beside the core, that a text imports from and that are not in ``known``."""
    packages = set(re.findall(r"^\s*from (detcore_\w+)", source, re.MULTILINE))
    found = {"pillow"} if re.search(r"^\s*from PIL", source, re.MULTILINE) else set()
    found |= {PREFIX + package.removeprefix("detcore_").replace("_", "-") for package in packages}
    return tuple(sorted(found - set(known)))
