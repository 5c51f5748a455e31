"""Transforms that mix several images of a dataset, and how a dataset runs them."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Callable, Sequence

from detcore.interfaces import Example, Transform

logger = logging.getLogger(__name__)

#: Classes of which it was said that they were called without a dataset.
_told: set[str] = set()


class MixTransform(Transform):
    """A transform that needs other examples of the same dataset (Mosaic, MixUp, copy-paste).

    A dataset runs its transforms through :func:`apply_transforms`, which asks :meth:`others` which examples are
    wanted, reads them, and hands them to :meth:`mix`. Both draw from torch's global generator and keep nothing
    between calls, so that (seed, epoch, index) decide, in whichever worker.
    """

    #: Whether the other examples come through all transforms before this one, mixing ones included, rather than
    #: through those before the first one that mixes.
    others_mixed: bool = False

    @abstractmethod
    def others(self, length: int) -> tuple[int, ...]:
        """Positions of the examples to be mixed in, drawn at random; none: the example stays as it is.

        Args:
            length: Number of images in the dataset, at least 1.
        """

    @abstractmethod
    def mix(self, example: Example, others: Sequence[Example]) -> Example:
        """The mixed example; the arguments are left as they are.

        Args:
            example: The one that the item is about; its ``file`` and ``image_id`` stay.
            others: One for each position that :meth:`others` gave, in its order; at least one.
        """

    def __call__(self, example: Example) -> Example:
        """The example mixed with itself, as in a dataset of one image; datasets use :func:`apply_transforms`."""
        name = type(self).__name__
        if name not in _told:
            _told.add(name)
            logger.warning(
                "%s was called without a dataset, and mixes the example with itself; "
                "a dataset should use detcore_data.apply_transforms",
                name,
            )
        wanted = self.others(1)
        return self.mix(example, [example] * len(wanted)) if wanted else example


def apply_transforms(
    read: Callable[[int], Example], index: int, length: int, transforms: Sequence[Transform]
) -> Example:
    """One item of a dataset, transformed; those that mix get other items.

    The other items go through the transforms before the first one that mixes (the same that the item itself went
    through before anything was mixed in), or, where ``others_mixed`` is set, through all before this one. They are
    read one transform at a time, and none is kept: beside the item there are as many examples in memory as one
    transform asks for.

    Args:
        read: Gives the example at a position, without transforms; it is a fresh one with each call.
        index: Position of the item.
        length: Number of images in the dataset.
        transforms: Applied in order.

    Raises:
        DataError: An image is missing or cannot be decoded; names the file.
    """
    first = next((i for i, one in enumerate(transforms) if isinstance(one, MixTransform)), len(transforms))
    example = read(index)
    for position, transform in enumerate(transforms):
        if not isinstance(transform, MixTransform):
            example = transform(example)
            continue
        before = transforms[: position if transform.others_mixed else first]
        wanted = transform.others(length)
        if wanted:
            example = transform.mix(
                example, [apply_transforms(read, other, length, before) for other in wanted]
            )
    return example
