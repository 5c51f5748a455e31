"""Registries for tests: components by name without installing them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from detcore import registry
from detcore.component import Component
from detcore.registry import Entry, Registry


def registry_of(
    *classes: type[Component], distribution: str = "tests", version: str = "0", installed: bool = False
) -> Registry:
    """A registry that holds the given classes, each under its own name.

    Args:
        *classes: Component classes.
        distribution: What to call the distribution that registers them.
        version: Its version.
        installed: Whether everything that is installed can be named too.
    """
    entries = {
        Entry(c.kind, c.__name__, distribution, version, f"{c.__module__}:{c.__qualname__}"): c
        for c in classes
    }
    others = registry.current().entries if installed else ()
    return Registry([*others, *entries], dict(entries))


@contextmanager
def registered(*classes: type[Component], distribution: str = "tests") -> Iterator[Registry]:
    """Lets the given classes be named inside the ``with`` block, beside all that is installed."""
    with registry.use(registry_of(*classes, distribution=distribution, installed=True)) as found:
        yield found
