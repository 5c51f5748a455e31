"""Which translator is for which type of the reference.

Those of this package are in :mod:`detcore_mmdet.families`. A plugin brings its own through the entry-point
group ``detcore_mmdet.translators``: the name is the reference's type, the target a function that takes
:class:`~detcore_mmdet.options.Options` and gives a detcore configuration. Only the one that is named is
imported.
"""

from __future__ import annotations

import functools
import importlib

import importlib_metadata

from detcore.errors import BrokenPluginError, did_you_mean
from detcore.known import PACKAGE_OF
from detcore_mmdet.options import Translator
from detcore_mmdet.reference_types import REFERENCE_TYPES

GROUP = "detcore_mmdet.translators"
_FAMILIES = ("assigners", "backbones", "blocks", "coders", "dense_heads", "detectors", "losses", "necks",
             "preprocessors", "priors", "roi_heads", "samplers")  # fmt: skip


@functools.lru_cache(maxsize=1)
def own_translators() -> dict[str, Translator]:
    """The translators of this package, by the reference's type."""
    tables = [importlib.import_module(f"detcore_mmdet.families.{name}").TRANSLATORS for name in _FAMILIES]
    return {name: translator for table in tables for name, translator in table.items()}


def translator_for(name: str) -> Translator | None:
    """The translator for a type of the reference, or None. A plugin's own comes before this package's.

    Raises:
        BrokenPluginError: A plugin registers one that cannot be loaded.
    """
    for point in importlib_metadata.entry_points(group=GROUP, name=name):
        try:
            return point.load()  # type: ignore[no-any-return]
        except Exception as cause:
            dist = f"{point.dist.name} {point.dist.version}" if point.dist else "an unknown distribution"
            raise BrokenPluginError(
                f"the translator of {name!r} in {dist} cannot be loaded: {point.value!r}: {cause!r}"
            ) from cause
    return own_translators().get(name)


def why_missing(name: str) -> tuple[str, str]:
    """Message and remedy for a type without a translator."""
    package = PACKAGE_OF.get(name)
    if package:
        return f"{name!r} is in {package}, but its options are not translated yet", "write that part by hand"
    if name in REFERENCE_TYPES:
        return (
            f"{name!r} ({REFERENCE_TYPES[name]}) would need a detcore plugin, and none has it yet",
            "",
        )
    near = did_you_mean(name, {**own_translators(), **REFERENCE_TYPES})
    return f"{name!r} is neither known to detcore nor a type of MMDetection", near
