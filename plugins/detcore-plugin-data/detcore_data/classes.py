"""Which classes a dataset has, in which order."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

from detcore.errors import DataError, did_you_mean
from detcore.structures import ClassMap

logger = logging.getLogger(__name__)


def choose_classes(
    source: str,
    names: Sequence[str],
    ids: Sequence[int] | None,
    wanted: Sequence[str] | None,
    *,
    declared: bool = True,
) -> ClassMap:
    """The class map of a dataset.

    Args:
        source: The annotation file or folder, for messages.
        names: All names that the files know.
        ids: Their ids in the files, or None where the files have none.
        wanted: The classes that the user wants, in the user's order; all where None.
        declared: Whether the files list their classes. Where names are only seen on objects, a class may
            happen to have none: it is accepted with a warning, unless it looks like a misspelling or no
            class is there.

    Raises:
        DataError: A class that is wanted does not exist; the message has the nearest name. Or two classes
            have one name or one id, or there is none.
    """
    if wanted is not None:
        _check_wanted(source, names, wanted, declared)
    chosen = tuple(names if wanted is None else wanted)
    try:
        if ids is None:
            return ClassMap(chosen)
        return ClassMap(chosen, tuple(ids[list(names).index(name)] for name in chosen))
    except DataError as error:
        raise DataError(f"{source}: {error}") from None


def _check_wanted(source: str, names: Sequence[str], wanted: Sequence[str], declared: bool) -> None:
    absent = [name for name in wanted if name not in names]
    for name in absent:
        near = did_you_mean(
            name, [other for other in names if other not in wanted] if not declared else names
        )
        if near or declared or len(absent) == len(wanted):
            raise DataError(
                f"classes: {source} has no class {name!r}{'; ' + near if near else ';'} "
                f"its classes are {', '.join(map(repr, names)) or 'none'}"
            )
    if absent:
        logger.warning("%s: no object has a class of %s", source, absent)


def labels_of(class_map: ClassMap, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Labels of dataset ids, and which ids the map has (elsewhere the label says nothing)."""
    order = np.argsort(class_map.ids)
    known = np.array(class_map.ids)[order]
    position = np.searchsorted(known, ids).clip(max=len(known) - 1)
    return order[position], known[position] == ids
