"""The catalogue of components: entry points of the groups ``detcore.<kind>``.

Listing reads metadata only. Loading imports the one component that is named; whatever goes wrong then
concerns that entry point alone. Set ``DETCORE_DISABLE_PLUGINS`` to distribution names (comma separated)
to leave these out, or to ``all`` to see nothing but the core.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import importlib_metadata

from detcore.errors import BrokenPluginError, UnknownComponentError, did_you_mean
from detcore.known import PACKAGE_OF

GROUP_PREFIX = "detcore."
#: Groups below the prefix that hold something else than components.
OTHER_GROUPS = frozenset({"hooks", "recipes"})
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
    """

    kind: str
    name: str
    distribution: str
    version: str
    target: str

    @property
    def qualified(self) -> str:
        """``distribution:Name``, unique among the installed."""
        return f"{self.distribution}:{self.name}"

    def load(self) -> Any:
        """Imports the target.

        Raises:
            BrokenPluginError: The import fails, for whatever reason, or the attribute does not exist.
        """
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


class Registry:
    """A fixed set of entries, looked up by kind and name.

    Args:
        entries: What can be named.
        classes: Already imported components by entry, for registries made in tests.
    """

    def __init__(self, entries: Iterable[Entry], classes: dict[Entry, type] | None = None) -> None:
        self._classes = dict(classes or {})
        unique = dict.fromkeys(entries)
        self.entries: tuple[Entry, ...] = tuple(
            sorted(unique, key=lambda e: (e.kind, e.name, e.distribution))
        )

    @classmethod
    def installed(cls) -> Registry:
        """Reads the metadata of everything installed, less what ``DETCORE_DISABLE_PLUGINS`` names."""
        return cls(e for e in read_entries() if e.kind not in OTHER_GROUPS)

    def kinds(self) -> tuple[str, ...]:
        """The kinds that have at least one component, sorted."""
        return tuple(dict.fromkeys(entry.kind for entry in self.entries))

    def names(self, kind: str) -> tuple[str, ...]:
        """The names registered for ``kind``, sorted, each once."""
        return tuple(dict.fromkeys(entry.name for entry in self.entries if entry.kind == kind))

    def find(self, name: str, kind: str | None = None) -> Entry:
        """The one entry that ``name`` or ``distribution:name`` means; imports nothing.

        Args:
            name: Bare or qualified component name.
            kind: Where to look; every kind where it is None.

        Raises:
            UnknownComponentError: No entry, or more than one, has that name.
        """
        distribution, _, bare = name.rpartition(":")
        found = [
            entry
            for entry in self.entries
            if entry.name == bare
            and kind in (None, entry.kind)
            and (not distribution or normalise(entry.distribution) == normalise(distribution))
        ]
        if len(found) == 1:
            return found[0]
        raise UnknownComponentError(self._ambiguous(name, found) if found else self._unknown(name, kind))

    def resolve(self, kind: str | None, name: str) -> type:
        """Imports the component that ``name`` means.

        Args:
            kind: ``backbones``, ``assigners``, ...; None searches every kind.
            name: ``Name``, or ``distribution:Name`` where several distributions register the name.

        Raises:
            UnknownComponentError: No entry, or more than one, has that name.
            BrokenPluginError: The entry's import fails, or it is not a component of its kind.
        """
        return self.load(self.find(name, kind))

    def load(self, entry: Entry) -> type:
        """Imports one entry and checks that it is a component of the kind that it is registered for."""
        component = self._classes.get(entry)
        if component is None:
            loaded = entry.load()
            _check(entry, loaded)
            component = self._classes[entry] = loaded
        return component

    def entry_of(self, component: type) -> Entry | None:
        """The entry that registers exactly this class, or None."""
        kind = getattr(component, "kind", None)
        same_name = [e for e in self.entries if e.kind == kind and e.name == component.__name__]
        target = f"{component.__module__}:{component.__qualname__}"
        for entry in same_name:
            if entry.target == target or self._classes.get(entry) is component:
                return entry
        for entry in same_name:  # a re-export: the target's module is not where the class is defined
            if entry.target.split(".")[0].split(":")[0] != component.__module__.split(".")[0]:
                continue
            try:
                if self.load(entry) is component:
                    return entry
            except BrokenPluginError:
                continue
        return None

    def _ambiguous(self, name: str, found: list[Entry]) -> str:
        kinds = sorted({entry.kind for entry in found})
        if len(kinds) > 1:
            return f"{name!r} names components of several kinds ({', '.join(kinds)}); say which kind is meant"
        options = " or ".join(repr(entry.qualified) for entry in found)
        return f"{name!r} is registered by {len(found)} distributions ({kinds[0]}); write {options}"

    def _unknown(self, name: str, kind: str | None) -> str:
        bare = name.rpartition(":")[2]
        what = f"{name!r} is not an installed component" + (f" of kind {kind!r}" if kind else "")
        elsewhere = sorted({entry.kind for entry in self.entries if entry.name == bare})
        if elsewhere and ":" not in name:
            return f"{what}; it is one of kind {', '.join(elsewhere)}"
        package = PACKAGE_OF.get(bare)
        if package and all(normalise(e.distribution) != package for e in self.entries):
            return f"{what}; install it with: pip install {package}"
        names = self.names(kind) if kind else tuple(e.name for e in self.entries)
        near = did_you_mean(bare, names) or did_you_mean(bare, PACKAGE_OF)
        listing = f"installed: {', '.join(names)}" if names else "nothing of that kind is installed"
        return "; ".join(part for part in (what, near, listing if kind or not near else "") if part)


def _check(entry: Entry, loaded: object) -> None:
    kind = getattr(loaded, "kind", None)
    if not isinstance(loaded, type) or kind is None:
        raise entry.broken(f"not being a component class but {loaded!r}")
    if kind != entry.kind:
        raise entry.broken(f"being a component of kind {kind!r}, registered as {entry.kind!r}")
    offered, built_for = getattr(loaded, "api_version", 1), getattr(loaded, "built_for_api", None)
    if built_for is not None and built_for != offered:
        newer = "a newer" if built_for > offered else "an older"
        update = CORE_DISTRIBUTION if built_for > offered else entry.distribution
        raise entry.broken(
            f"being built for {newer} interface (version {built_for}; this detcore has {offered}): update {update}"
        )


def normalise(distribution: str) -> str:
    """The canonical spelling of a distribution's name (PEP 503)."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def disabled_distributions() -> frozenset[str]:
    """The canonical names in ``DETCORE_DISABLE_PLUGINS``."""
    names = os.environ.get(DISABLE_VARIABLE, "").split(",")
    return frozenset(normalise(name.strip()) for name in names if name.strip())


def read_entries() -> Iterator[Entry]:
    """Every entry point below ``detcore.``, hooks and recipes included.

    Distributions whose metadata is damaged are passed over.
    """
    off = disabled_distributions()
    seen: set[str] = set()
    for distribution in importlib_metadata.distributions():
        try:
            name, version = distribution.metadata["Name"], distribution.version
            points = list(distribution.entry_points) if name else []
        except Exception:  # unreadable metadata breaks only its own distribution
            continue
        key = normalise(name or "")
        if not name or key in seen:  # the first on sys.path is the one that Python imports
            continue
        seen.add(key)
        if key in off or ("all" in off and key != CORE_DISTRIBUTION):
            continue
        for point in points:
            if point.group.startswith(GROUP_PREFIX):
                yield Entry(point.group[len(GROUP_PREFIX) :], point.name, name, version, point.value)


@functools.lru_cache(maxsize=8)
def _installed(disabled: str) -> Registry:
    return Registry.installed()


_override: ContextVar[Registry | None] = ContextVar("detcore_registry", default=None)


def current() -> Registry:
    """The registry in force: the installed one, or the one that :func:`use` put in its place."""
    return _override.get() or _installed(os.environ.get(DISABLE_VARIABLE, ""))


@contextmanager
def use(registry: Registry) -> Iterator[Registry]:
    """Makes ``registry`` the one that every look-up uses inside the ``with`` block."""
    token = _override.set(registry)
    try:
        yield registry
    finally:
        _override.reset(token)


def refresh() -> None:
    """Forgets what was read, so that distributions installed since are seen."""
    _installed.cache_clear()


def kinds() -> tuple[str, ...]:
    """The kinds that have at least one installed component."""
    return current().kinds()


def names(kind: str) -> tuple[str, ...]:
    """The installed component names of ``kind``."""
    return current().names(kind)


def entries(kind: str | None = None) -> tuple[Entry, ...]:
    """The installed entries, of one kind or of all."""
    return tuple(entry for entry in current().entries if kind in (None, entry.kind))


def resolve(kind: str | None, name: str) -> type:
    """Imports the component that ``name`` means; see :meth:`Registry.resolve`."""
    return current().resolve(kind, name)
