"""Instance masks as annotations have them: polygons and run lengths, packed into a few arrays."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool
from pycocotools import mask as coco_mask
from torch import Tensor

from detcore.errors import DataError
from detcore_data.images import PILLOW_LIMIT

_FARTHEST = 1e6
#: Longest outline of a polygon in pixels: pycocotools keeps some 40 bytes for each pixel of it.
_LONGEST = 4e6
#: Bits of a run length in COCO's text, generously.
_BITS = 60


@dataclass(frozen=True)
class Segmentations:
    """The segmentations of S annotations; flat arrays, so that data-loader workers share them without copies.

    Args:
        coordinates: All polygons' x, y, x, y, ..., one polygon after another.
        polygon_ends: Where each polygon ends in ``coordinates``.
        annotation_ends: Where each annotation's polygons end in ``polygon_ends``; it has none where it is a
            run length.
        runs: Run lengths by annotation, in COCO's form.
    """

    coordinates: np.ndarray
    polygon_ends: np.ndarray
    annotation_ends: np.ndarray
    runs: Mapping[int, Mapping[str, Any]]

    @classmethod
    def parse(cls, values: Sequence[Any]) -> tuple[Segmentations, np.ndarray]:
        """Packs the ``segmentation`` entries of a COCO file.

        Polygons of fewer than three points enclose nothing and are left out.

        Returns:
            The segmentations, and which entries [S] hold any.

        Raises:
            DataError: A coordinate is no number, or far beyond any image.
        """
        flat: list[float] = []
        polygon_ends: list[int] = []
        annotation_ends: list[int] = []
        runs: dict[int, Mapping[str, Any]] = {}
        for i, value in enumerate(values):
            if isinstance(value, Mapping):
                if _is_run(value):
                    runs[i] = value
            elif isinstance(value, list):
                for polygon in value:
                    if _is_polygon(polygon):
                        flat.extend(polygon)
                        polygon_ends.append(len(flat))
            annotation_ends.append(len(polygon_ends))
        coordinates = _numbers(flat)
        _check_outlines(coordinates, polygon_ends)
        ends = np.array(annotation_ends, dtype=np.int64)
        has_mask = np.diff(ends, prepend=0) > 0
        has_mask[list(runs)] = True
        packed = cls(coordinates, np.array(polygon_ends, dtype=np.int64), ends, runs)
        return packed, has_mask

    def polygons(self, index: int) -> list[np.ndarray]:
        """The polygons of one annotation, each [x, y, x, y, ...]; none where it is a run length."""
        first = int(self.annotation_ends[index - 1]) if index else 0
        ends = self.polygon_ends[first : self.annotation_ends[index]]
        begin = int(self.polygon_ends[first - 1]) if first else 0
        return np.split(self.coordinates[begin : ends[-1]], ends[:-1] - begin) if len(ends) else []

    def encode(self, index: int, size: tuple[int, int]) -> dict[str, Any]:
        """One annotation's mask as compressed run lengths, for an image of (h, w)."""
        _check_size(size)
        if index in self.runs:
            return _encode(self.dense(index, size))  # type: ignore[no-any-return]
        polygons = [polygon.tolist() for polygon in self.polygons(index)]
        return coco_mask.merge(coco_mask.frPyObjects(polygons, *size))  # type: ignore[no-any-return]

    def dense(self, index: int, size: tuple[int, int]) -> np.ndarray:
        """One annotation's mask [h, w] of 0 and 1, for an image of (h, w).

        Raises:
            DataError: A run length is of another size than the image, or damaged.
        """
        _check_size(size)
        run = self.runs.get(index)
        if run is None:
            return quietly(coco_mask.decode, self.encode(index, size))  # type: ignore[no-any-return]
        if tuple(run["size"]) != size:
            raise DataError(f"a mask of size (h, w) {tuple(run['size'])} in an image of {size}")
        try:
            counts = np.array(_counts(run["counts"]), dtype=np.int64)
        except (TypeError, ValueError, OverflowError) as cause:
            raise DataError(f"a mask's run lengths are damaged ({cause})") from cause
        if (counts < 0).any() or counts.sum() != size[0] * size[1]:
            found = f"they cover {counts.sum()} of {size[0] * size[1]} pixels"
            raise DataError(f"a mask's run lengths are damaged ({found})")
        inside = (np.arange(len(counts)) % 2).astype(np.uint8)
        return np.repeat(inside, counts).reshape(size[::-1]).T

    def decode(self, indices: Sequence[int], size: tuple[int, int], where: str) -> Bool[Tensor, "n h w"]:
        """Dense masks of some annotations of one image.

        Args:
            indices: Which annotations.
            size: (h, w) of the image.
            where: The image, for the message.

        Raises:
            DataError: A run length is of another size than the image, or damaged.
        """
        masks = torch.zeros((len(indices), *size), dtype=torch.bool)
        try:
            for mask, index in zip(masks, indices, strict=True):
                mask.copy_(torch.from_numpy(self.dense(index, size)))
        except DataError as error:
            raise DataError(f"{where}: {error}") from error
        return masks


def run_lengths(masks: Bool[Tensor, "n h w"]) -> list[dict[str, Any]]:
    """Dense masks as COCO's compressed run lengths: ``size`` (h, w) and ``counts``, bytes of ASCII."""
    if not len(masks):
        return []
    rows: list[dict[str, Any]] = _encode(masks.to(torch.uint8).permute(1, 2, 0).cpu().numpy())
    return rows


def _encode(dense: np.ndarray) -> Any:
    return quietly(coco_mask.encode, np.asfortranarray(dense))


def _counts(value: Any) -> list[int]:
    """Run lengths, alternately of 0 and 1, from a list or from COCO's text.

    In the text, a character minus 48 holds five bits of a number, the lowest ones first, and whether there
    are more. The last of them has the sign; from the fourth number on, differences to the last but one are
    stored.
    """
    if isinstance(value, list):
        if not all(type(count) is int for count in value):
            raise ValueError("a length is no integer")
        return value
    counts: list[int] = []
    number = bits = 0
    for byte in value.encode("ascii"):
        chunk = byte - 48
        if not 0 <= chunk < 64:
            raise ValueError(f"unexpected character {chr(byte)!r}")
        number |= (chunk & 31) << bits
        bits += 5
        if bits > _BITS:
            raise ValueError("a length of more than 60 bits")
        if not chunk & 32:
            number -= (chunk >> 4) << bits
            counts.append(number + (counts[-2] if len(counts) > 2 else 0))
            number = bits = 0
    if bits:
        raise ValueError("the text ends within a number")
    return counts


def quiet() -> warnings.catch_warnings[None]:
    """A context without pycocotools' warnings about numpy's future, which its users can do nothing about."""
    return warnings.catch_warnings(action="ignore", category=DeprecationWarning)


def quietly(function: Callable[..., Any], *arguments: Any) -> Any:
    """Calls a function of pycocotools in the context of :func:`quiet`."""
    with quiet():
        return function(*arguments)


def _numbers(values: list[Any]) -> np.ndarray:
    try:
        coordinates = np.array(values, dtype=np.float64)
    except (TypeError, ValueError) as cause:
        raise DataError(f"a polygon has a coordinate that is no number ({cause})") from cause
    if not (np.abs(coordinates) < _FARTHEST).all():  # pycocotools walks along the outline pixel by pixel
        raise DataError(f"a polygon has a coordinate beyond +-{_FARTHEST:g} pixels, or one that is no number")
    return coordinates


def _check_outlines(coordinates: np.ndarray, ends: Sequence[int]) -> None:
    """Refuses polygons that go to and fro over millions of pixels, whose masks would take gigabytes.

    Raises:
        DataError: There is one.
    """
    if not len(ends):
        return
    points = coordinates.reshape(-1, 2)
    first = np.concatenate(([0], np.asarray(ends[:-1], dtype=np.int64) // 2))
    steps = np.abs(np.diff(points, axis=0, append=points[-1:])).max(axis=1)
    last = np.asarray(ends, dtype=np.int64) // 2 - 1
    steps[last] = np.abs(points[first] - points[last]).max(axis=1)  # the edge that closes the polygon
    longest = np.add.reduceat(steps, first).max()
    if longest > _LONGEST:
        raise DataError(
            f"a polygon has an outline of {longest:g} pixels; more than {_LONGEST:g} are not drawn"
        )


def _check_size(size: tuple[int, int]) -> None:
    if size[0] * size[1] > PILLOW_LIMIT:
        raise DataError(
            f"a mask of an image of {size[1]} x {size[0]} pixels (w x h), more than {PILLOW_LIMIT} in all"
        )


def _is_polygon(value: Any) -> bool:
    return isinstance(value, list) and len(value) >= 6 and len(value) % 2 == 0


def _is_run(value: Mapping[str, Any]) -> bool:
    size = value.get("size")
    return isinstance(value.get("counts"), (list, str)) and isinstance(size, list) and len(size) == 2
