"""Region features from one level of a pyramid."""

from __future__ import annotations

from typing import Annotated

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from detcore.component import wired
from detcore.interfaces import RoIExtractor
from detcore.structures import FeatureSpec
from detcore_rcnn.align import align, pyramid_levels, rescale
from detcore_rcnn.sizes import Cells, pair, used_levels


class SingleRoIExtractor(RoIExtractor):
    """RoIAlign from the level that fits a region's size.

    Lin et al., Feature Pyramid Networks (arXiv:1612.03144); He et al., Mask R-CNN (arXiv:1703.06870).

    Args:
        in_features: Channels (the same in each used level) and strides of the pyramid; supplied by the owner.
        output_size: (h, w) of the result, in cells; one number stands for both.
        sampling_ratio: Samples per cell and axis; 0 for as many as the cell has pixels of the level.
        aligned: Whether samples are placed by the centres of the level's cells; False is half a cell off, as
            the first implementations were.
        num_levels: How many levels are used, from the finest; None for all.
        finest_scale: Regions smaller than twice this (root of the area, in pixels) are read from the first
            level, each doubling from one level further.
        roi_scale_factor: Factor on the regions' sides, after the choice of the level.

    Raises:
        ConfigError: The pyramid has fewer levels, or they differ in channels.
    """

    def __init__(
        self,
        *,
        in_features: tuple[FeatureSpec, ...] = wired(),
        output_size: Cells | tuple[Cells, Cells] = 7,
        sampling_ratio: Annotated[int, Field(ge=0)] = 0,
        aligned: bool = True,
        num_levels: Annotated[int, Field(ge=1)] | None = 4,
        finest_scale: Annotated[float, Field(gt=0)] = 56.0,
        roi_scale_factor: Annotated[float, Field(gt=0)] = 1.0,
    ) -> None:
        super().__init__()
        used, self.out_channels = used_levels(in_features, num_levels)
        self.strides = tuple(level.stride for level in used)
        self.output_size = pair(output_size)
        self.sampling_ratio, self.aligned = sampling_ratio, aligned
        self.finest_scale, self.roi_scale_factor = finest_scale, roi_scale_factor

    def forward(
        self, features: tuple[Tensor, ...], boxes: Float[Tensor, "P 4"], image: Int[Tensor, "P"]
    ) -> Float[Tensor, "P C h w"]:
        """See :class:`~detcore.interfaces.RoIExtractor`."""
        count = len(self.strides)
        level = pyramid_levels(boxes, self.finest_scale, count)
        if self.roi_scale_factor != 1:
            boxes = rescale(boxes, self.roi_scale_factor)
        if count == 1:
            return self._align(features, 0, boxes, image)
        if torch.compiler.is_compiling():  # fixed shapes: every region from every level
            everywhere = torch.stack([self._align(features, i, boxes, image) for i in range(count)])
            return everywhere[level, torch.arange(len(level), device=level.device)]
        order = level.argsort(stable=True)
        rows = torch.split(order, level.bincount(minlength=count).tolist())
        if not torch.is_grad_enabled():
            return self._gathered(features, boxes, image, rows)
        pooled = [self._align(features, i, boxes[rows[i]], image[rows[i]]) for i in range(count)]
        # concatenated rather than written into one tensor: connected to every level, with no region too
        return torch.cat(pooled)[order.argsort()]

    def _gathered(
        self, features: tuple[Tensor, ...], boxes: Tensor, image: Tensor, rows: tuple[Tensor, ...]
    ) -> Tensor:
        """What the levels give, each written to its rows once."""
        pooled = features[0].new_empty((len(boxes), self.out_channels, *self.output_size))
        for i, chosen in enumerate(rows):
            pooled[chosen] = self._align(features, i, boxes[chosen], image[chosen])
        return pooled

    def _align(self, features: tuple[Tensor, ...], level: int, boxes: Tensor, image: Tensor) -> Tensor:
        return align(
            features[level], boxes, image, self.strides[level],
            self.output_size, self.sampling_ratio, self.aligned,
        )  # fmt: skip
