"""The same images with other transforms."""

from __future__ import annotations

import copy
from collections.abc import Sequence

from detcore.errors import DataError
from detcore.interfaces import Dataset, Transform
from detcore_data.source import ExampleSource


def with_transforms(dataset: Dataset, transforms: Sequence[Transform]) -> Dataset:
    """A dataset with the same images and other transforms; annotations are not read again.

    Datasets of this package can do it. Those of others have a method ``with_transforms(transforms)``.

    Args:
        dataset: Stays as it is.
        transforms: In place of the dataset's.

    Raises:
        DataError: The dataset cannot do it.
    """
    own = getattr(dataset, "with_transforms", None)
    if own is not None:
        return own(tuple(transforms))  # type: ignore[no-any-return]
    source = getattr(dataset, "_source", None)
    if not isinstance(source, ExampleSource):
        raise DataError(
            f"{type(dataset).__name__} cannot change its transforms; give it a method with_transforms(transforms) that "
            "returns the same images with others"
        )
    other, own_source = copy.copy(dataset), copy.copy(source)
    own_source.transforms = tuple(transforms)
    other.__dict__.update(transforms=own_source.transforms, _source=own_source)
    return other
