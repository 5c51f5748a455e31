"""Entry points below ``detcore.``, as the installed metadata states them. Nothing is imported to read them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import importlib_metadata

from detcore.api import GROUP as API_GROUP
from detcore.api import UNDECLARED
from detcore.errors import BrokenPluginError

GROUP_PREFIX = "detcore."
DISABLE_VARIABLE = "DETCORE_DISABLE_PLUGINS"
CORE_DISTRIBUTION = "detcore"


@dataclass(frozen=True)
class Entry:
    """One entry point, as the installed metadata states it. Nothing of it has been imported.

    Args:
        kind: The group without its prefix: ``backbones``, ``assigners``, ...
        name: The component's name, equal to its class's name.
        distribution: The distribution that registers it.
        version: The distribution's version.
        target: ``module:attribute``.
        api: The interface version that its distribution declares to be built for: ``v1``, ``v2``, ...
    """

    kind: str
    name: str
    distribution: str
    version: str
    target: str
    api: str = UNDECLARED

    @property
    def qualified(self) -> str:
        """``distribution:Name``, unique among the installed."""
        return f"{self.distribution}:{self.name}"

    def load(self) -> Any:
        """Imports the target.

        Raises:
            BrokenPluginError: The import fails, for whatever reason, or the attribute does not exist.
        """
        if not re.fullmatch(r"[\w.]+(:[\w.]+)?", self.target):
            raise self.broken("not being of the form module:Class")
        point = importlib_metadata.EntryPoint(
            name=self.name, value=self.target, group=GROUP_PREFIX + self.kind
        )
        try:
            return point.load()
        except KeyboardInterrupt:
            raise
        except BaseException as cause:  # a plugin may even call sys.exit() at import
            raise self.broken(f"{type(cause).__name__}: {cause}") from cause

    def broken(self, cause: str) -> BrokenPluginError:
        """The error that says that this entry point, and nothing else, is unusable."""
        return BrokenPluginError(
            f"{self.name!r} ({self.kind}) of {self.distribution} {self.version} cannot be used: "
            f"its entry point {self.target!r} failed with {cause}. "
            f"Update or uninstall {self.distribution}, or set {DISABLE_VARIABLE}={self.distribution}."
        )


@dataclass(frozen=True)
class Damaged:
    """A distribution whose metadata cannot be read.

    Args:
        path: Its ``.dist-info`` folder.
        cause: What is wrong with it.
    """

    path: str
    cause: str


def normalise(distribution: str) -> str:
    """The canonical spelling of a distribution's name (PEP 503)."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def disabled_distributions() -> frozenset[str]:
    """The canonical names in ``DETCORE_DISABLE_PLUGINS``."""
    names = os.environ.get(DISABLE_VARIABLE, "").split(",")
    return frozenset(normalise(name.strip()) for name in names if name.strip())


def is_disabled(distribution: str) -> bool:
    """Whether ``DETCORE_DISABLE_PLUGINS`` leaves that distribution out."""
    off, key = disabled_distributions(), normalise(distribution)
    return key in off or ("all" in off and key != CORE_DISTRIBUTION)


def read_entries() -> Iterator[Entry]:
    """Every entry point below ``detcore.``, hooks and recipes included, of what is not switched off.

    Distributions whose metadata is damaged are passed over.
    """
    for found in scan():
        if isinstance(found, Entry) and not is_disabled(found.distribution):
            yield found


def scan() -> Iterator[Entry | Damaged]:
    """Every entry point below ``detcore.``, of what is switched off too, and what could not be read."""
    seen: set[str] = set()
    for distribution in importlib_metadata.distributions():
        try:
            ours = f"[{GROUP_PREFIX}" in (distribution.read_text("entry_points.txt") or "")
        except Exception as cause:  # unreadable metadata breaks only its own distribution
            yield _damaged(distribution, cause)
            continue
        try:
            name, version = _name_and_version(distribution)
            points = list(distribution.entry_points) if ours else []
        except Exception as cause:
            if ours:
                yield _damaged(distribution, cause)
            continue
        key = normalise(name)
        if key not in seen:  # the first on sys.path is the one that Python imports
            seen.add(key)
            yield from _entries(name, version, points)


def _entries(name: str, version: str, points: list[Any]) -> Iterator[Entry]:
    built_for = {point.name: point.value for point in points if point.group == GROUP_PREFIX + API_GROUP}
    for point in points:
        kind = point.group.removeprefix(GROUP_PREFIX)
        if kind not in (point.group, API_GROUP):
            yield Entry(kind, point.name, name, version, point.value, built_for.get(kind, UNDECLARED))


def _name_and_version(distribution: Any) -> tuple[str, str]:
    # parsing a whole METADATA costs a millisecond each, for every distribution that is installed
    text = distribution.read_text("METADATA") or distribution.read_text("PKG-INFO") or ""
    head = text.partition("\n\n")[0]
    found = [re.search(rf"^{field}:[ \t]*(\S.*?)\s*$", head, re.MULTILINE) for field in ("Name", "Version")]
    if not found[0] or not found[1]:
        raise ValueError("its METADATA states no name and version")
    return found[0][1], found[1][1]


def _damaged(distribution: Any, cause: Exception) -> Damaged:
    path = getattr(distribution, "_path", distribution)
    return Damaged(os.path.realpath(str(path)), f"{type(cause).__name__}: {cause}")
