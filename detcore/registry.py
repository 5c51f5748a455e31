"""The catalogue of components: entry points of the groups ``detcore.<kind>``.

Listing reads metadata only. Loading imports the one component that is named; whatever goes wrong then
concerns that entry point alone. Set ``DETCORE_DISABLE_PLUGINS`` to distribution names (comma separated)
to leave these out, or to ``all`` to see nothing but the core.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from detcore.api import GROUP as API_GROUP
from detcore.api import INTERFACE_VERSIONS, declared_version
from detcore.entries import (
    CORE_DISTRIBUTION,
    DISABLE_VARIABLE,
    GROUP_PREFIX,
    Entry,
    disabled_distributions,
    normalise,
    read_entries,
)
from detcore.errors import BrokenPluginError, InterfaceVersionError, UnknownComponentError, did_you_mean
from detcore.known import PACKAGE_OF

__all__ = [
    "CORE_DISTRIBUTION",
    "DISABLE_VARIABLE",
    "GROUP_PREFIX",
    "OTHER_GROUPS",
    "Entry",
    "Registry",
    "current",
    "disabled_distributions",
    "entries",
    "kinds",
    "names",
    "normalise",
    "read_entries",
    "refresh",
    "resolve",
    "use",
]

#: Groups below the prefix that hold something else than components.
OTHER_GROUPS = frozenset({"hooks", "recipes", API_GROUP})


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
            InterfaceVersionError: It was built for another version of its interface.
        """
        return self.load(self.find(name, kind))

    def load(self, entry: Entry) -> type:
        """Imports one entry and checks that it is a component of the kind that it is registered for."""
        component = self._classes.get(entry)
        if component is None:
            if entry.kind in INTERFACE_VERSIONS:  # before the import, which may fail for that very reason
                _check_version(entry, INTERFACE_VERSIONS[entry.kind])
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
    _check_version(entry, int(getattr(loaded, "api_version", 1)), loaded)


def _check_version(entry: Entry, offered: int, loaded: type | None = None) -> None:
    """Refuses what was built for another version of its interface than the one installed."""
    built_for = declared_version(entry.api)
    if built_for == offered:
        return
    title = f"{entry.name!r} ({entry.kind}) of {entry.distribution} {entry.version} cannot be used"
    declaration = f'{entry.kind} = "v{offered}" under [project.entry-points."{GROUP_PREFIX}{API_GROUP}"]'
    author = f"its author: change it to version {offered}, then declare {declaration}"
    if built_for is None:
        raise InterfaceVersionError(
            f"{title}: it declares to be built for interface version {entry.api!r}, which is not of the form "
            f"'v{offered}'. Update {entry.distribution}; {author}."
        )
    owner = CORE_DISTRIBUTION if loaded is None or entry.kind in INTERFACE_VERSIONS else _definer(loaded)
    if built_for > offered:
        remedy = f"Update {owner}, or install an older {entry.distribution}"
    else:
        remedy = f"Update {entry.distribution} ({author}), or install an older {owner}"
    raise InterfaceVersionError(
        f"{title}: it was built for version {built_for} of the interface of {entry.kind}, and the installed "
        f"{owner} has version {offered}. {remedy}, or set {DISABLE_VARIABLE}={entry.distribution}."
    )


def _definer(component: type) -> str:
    """The import package that defines the interface of ``component``."""
    bases = [base for base in component.__mro__ if "kind" in vars(base)]
    return bases[-1].__module__.partition(".")[0] if bases else component.__module__


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
