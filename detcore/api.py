"""Versions of the interfaces: what a plugin is built for, and what is installed.

A plugin says in its metadata, without being imported, which version of an interface it was written for::

    [project.entry-points."detcore.api"]
    assigners = "v2"

Where it says nothing, version 1 is meant. The value is an identifier because installers check it as one.
"""

from __future__ import annotations

import re
from typing import Any

#: The group of the declarations, without its prefix.
GROUP = "api"
#: What an entry point was built for where its distribution declares nothing.
UNDECLARED = "v1"

#: Version of each of the core's interfaces, by kind; raised by one in a change that breaks components written
#: for it. The classes' ``api_version`` is read from here.
INTERFACE_VERSIONS: dict[str, int] = {
    "assigners": 1,
    "backbones": 1,
    "bbox_coders": 1,
    "bbox_heads": 1,
    "blocks": 1,
    "datasets": 1,
    "dense_heads": 1,
    "detectors": 1,
    "losses": 1,
    "mask_heads": 1,
    "metrics": 1,
    "necks": 1,
    "postprocess": 1,
    "preprocessors": 1,
    "prior_generators": 1,
    "roi_extractors": 1,
    "roi_heads": 1,
    "samplers": 1,
    "shared_heads": 1,
    "transforms": 1,
}


def api_version(interface: str | type[Any]) -> int:
    """The version of an interface that is installed.

    Args:
        interface: An interface, a component of it, or (for the core's interfaces) the name of its kind.

    Raises:
        UnknownComponentError: The core has no interface of that kind; give the class for those of plugins.
    """
    if not isinstance(interface, str):
        return int(interface.api_version)
    if interface not in INTERFACE_VERSIONS:
        from detcore.errors import UnknownComponentError, did_you_mean

        near = did_you_mean(interface, INTERFACE_VERSIONS) or f"kinds: {', '.join(INTERFACE_VERSIONS)}"
        raise UnknownComponentError(f"the core has no interface of kind {interface!r}; {near}")
    return INTERFACE_VERSIONS[interface]


def declared_version(text: str) -> int | None:
    """The number in a declaration such as ``v2``; None where it is not of that form."""
    found = re.fullmatch(r"v([1-9][0-9]{0,5})", text)
    return int(found[1]) if found else None
