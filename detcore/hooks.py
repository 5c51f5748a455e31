"""Events that plugins may listen to: pluggy hooks, entry-point group ``detcore.hooks``.

A hook plugin is a module (or object) whose functions are marked with :data:`hookimpl` and named as below. Each is
loaded on its own: one that fails is left out with a warning and reported by :func:`failures`.
"""

from __future__ import annotations

import functools
import os
import warnings
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import pluggy

from detcore import registry
from detcore.errors import BrokenPluginError

if TYPE_CHECKING:
    import typer
    from torch import Tensor

    from detcore.component import Component, Spec
    from detcore.interfaces import Detector
    from detcore.testing import Check, Subject
    from detcore.weights import AdaptedWeights

PROJECT = "detcore"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


class BrokenPluginWarning(UserWarning):
    """A hook plugin could not be loaded and was left out."""


class Hooks:
    """The hook specifications."""

    @hookspec
    def detcore_add_commands(self, app: typer.Typer) -> None:
        """Adds commands to the command line. Import what is heavy inside the commands, not before."""

    @hookspec(firstresult=True)
    def detcore_resolve_weights(self, address: str) -> Mapping[str, Tensor] | None:
        """The weights behind an address such as ``torchvision://resnet50``; None for addresses of others."""

    @hookspec(firstresult=True)
    def detcore_adapt_weights(
        self, address: str, weights: Mapping[str, Tensor], detector: Detector
    ) -> AdaptedWeights | None:
        """Weights of another library's detector by the names, and in the shapes, of detcore's.

        Asked for every address from which a whole detector is loaded; None where they are not of that library.
        """

    @hookspec
    def detcore_configure(self, config: dict[str, Any]) -> None:
        """Changes a resolved configuration in place, before it is validated and built."""

    @hookspec
    def detcore_built(self, model: Component) -> None:
        """Acts on a model that was built from a configuration, before its weights are loaded or trained."""

    @hookspec
    def detcore_conformance_examples(self) -> Iterable[Spec[Any] | Component | Subject]:
        """Examples of components, for the conformance kit to check; any number per class, of any distribution.

        Classes without an example are checked with their defaults, those with required parameters need one.
        Import what is heavy inside the function.
        """
        return ()

    @hookspec
    def detcore_add_checks(self) -> Iterable[Check]:
        """Conformance checks beside those of :mod:`detcore.testing`, for interfaces of one's own or of all."""
        return ()


#: Settings of ``DETCORE_DISABLE_PLUGINS`` under which what is broken was warned of.
_warned: set[str] = set()


@functools.lru_cache(maxsize=4)
def _load(disabled: str) -> tuple[pluggy.PluginManager, tuple[BrokenPluginError, ...]]:
    manager = empty_manager()
    failed = []
    for entry in registry.read_entries():
        if entry.kind != "hooks":
            continue
        try:
            manager.register(entry.load(), name=entry.qualified)
        except BrokenPluginError as error:
            failed.append(error)
        except Exception as cause:  # pluggy rejects the plugin: a wrong signature, for example
            failed.append(entry.broken(f"{type(cause).__name__}: {cause}"))
    return manager, tuple(failed)


def empty_manager() -> pluggy.PluginManager:
    """A manager that knows the hooks, and no plugin."""
    made = pluggy.PluginManager(PROJECT)
    made.add_hookspecs(Hooks)
    return made


def manager() -> pluggy.PluginManager:
    """The plugin manager with every hook plugin that could be loaded.

    The first call warns of those that could not; :func:`failures` has the reasons at any time.
    """
    disabled = os.environ.get(registry.DISABLE_VARIABLE, "")
    loaded, failed = _load(disabled)
    if disabled not in _warned:
        _warned.add(disabled)
        for error in failed:
            warnings.warn(str(error), BrokenPluginWarning, stacklevel=2)
    return loaded


def failures() -> tuple[BrokenPluginError, ...]:
    """Why hook plugins were left out."""
    return _load(os.environ.get(registry.DISABLE_VARIABLE, ""))[1]


def refresh() -> None:
    """Forgets what was loaded, so that hook plugins installed since are seen."""
    _load.cache_clear()
    _warned.clear()
