"""Instance masks as annotations have them: polygons and run lengths, packed into a few arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool
from pycocotools import mask as coco_mask
from torch import Tensor

from detcore.errors import DataError


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
        ends = np.array(annotation_ends, dtype=np.int64)
        has_mask = np.diff(ends, prepend=0) > 0
        has_mask[list(runs)] = True
        packed = cls(np.array(flat, dtype=np.float64), np.array(polygon_ends, dtype=np.int64), ends, runs)
        return packed, has_mask

    def polygons(self, index: int) -> list[np.ndarray]:
        """The polygons of one annotation, each [x, y, x, y, ...]; none where it is a run length."""
        first = int(self.annotation_ends[index - 1]) if index else 0
        ends = self.polygon_ends[first : self.annotation_ends[index]]
        begin = int(self.polygon_ends[first - 1]) if first else 0
        return np.split(self.coordinates[begin : ends[-1]], ends[:-1] - begin) if len(ends) else []

    def encode(self, index: int, size: tuple[int, int]) -> dict[str, Any]:
        """One annotation's mask as compressed run lengths, for an image of (h, w)."""
        run = self.runs.get(index)
        if run is None:
            polygons = [polygon.tolist() for polygon in self.polygons(index)]
            return coco_mask.merge(coco_mask.frPyObjects(polygons, *size))  # type: ignore[no-any-return]
        if isinstance(run["counts"], list):
            return coco_mask.frPyObjects(dict(run), *run["size"])  # type: ignore[no-any-return]
        counts = run["counts"]
        return {"size": list(run["size"]), "counts": counts.encode() if isinstance(counts, str) else counts}

    def decode(self, indices: Sequence[int], size: tuple[int, int], where: str) -> Bool[Tensor, "n h w"]:
        """Dense masks of some annotations of one image.

        Args:
            indices: Which annotations.
            size: (h, w) of the image.
            where: The image, for the message.

        Raises:
            DataError: A run length is of another size than the image, or damaged.
        """
        if not len(indices):
            return torch.zeros((0, *size), dtype=torch.bool)
        encoded = []
        for index in indices:
            run = self.encode(int(index), size)
            if tuple(run["size"]) != size:
                raise DataError(f"{where}: a mask of size (h, w) {tuple(run['size'])} in an image of {size}")
            encoded.append(run)
        dense = coco_mask.decode(encoded)
        return torch.from_numpy(np.ascontiguousarray(dense.transpose(2, 0, 1))).bool()


def _is_polygon(value: Any) -> bool:
    return isinstance(value, list) and len(value) >= 6 and len(value) % 2 == 0


def _is_run(value: Mapping[str, Any]) -> bool:
    return "counts" in value and isinstance(value.get("size"), list) and len(value["size"]) == 2
