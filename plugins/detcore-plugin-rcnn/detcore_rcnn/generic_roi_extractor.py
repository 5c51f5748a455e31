"""Region features from all levels of a pyramid."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from detcore.component import wired
from detcore.interfaces import RoIExtractor
from detcore.layers import ConvNormAct
from detcore.structures import FeatureSpec
from detcore_rcnn.align import align, rescale
from detcore_rcnn.sizes import Cells, pair, used_levels


class GenericRoIExtractor(RoIExtractor):
    """RoIAlign from every level, summed or concatenated.

    Rossi et al., A novel Region of Interest Extraction Layer for Instance Segmentation (GRoIE,
    arXiv:2004.13665), without its attention afterwards; Liu et al., PANet (arXiv:1803.01534).

    Args:
        in_features: Channels (the same in each used level) and strides of the pyramid; supplied by the owner.
        output_size: (h, w) of the result, in cells; one number stands for both.
        sampling_ratio: Samples per cell and axis; 0 for as many as the cell has pixels of the level.
        aligned: Whether samples are placed by the centres of the level's cells; False is half a cell off, as
            the first implementations were.
        num_levels: How many levels are used, from the finest; None for all.
        aggregation: How the levels' features are joined: "sum", or "concat" along the channels.
        pre_kernel_size: Side of a convolution with ReLU, shared by the levels, before they are joined; None
            for none.
        roi_scale_factor: Factor on the regions' sides.

    Raises:
        ConfigError: The pyramid has fewer levels, they differ in channels, or ``pre_kernel_size`` is even.
    """

    def __init__(
        self,
        *,
        in_features: tuple[FeatureSpec, ...] = wired(),
        output_size: Cells | tuple[Cells, Cells] = 7,
        sampling_ratio: Annotated[int, Field(ge=0)] = 0,
        aligned: bool = True,
        num_levels: Annotated[int, Field(ge=1)] | None = 4,
        aggregation: Literal["sum", "concat"] = "sum",
        pre_kernel_size: Cells | None = None,
        roi_scale_factor: Annotated[float, Field(gt=0)] = 1.0,
    ) -> None:
        super().__init__()
        if pre_kernel_size is not None and pre_kernel_size % 2 == 0:
            raise ValueError(f"pre_kernel_size should be odd, got {pre_kernel_size}")
        used, channels = used_levels(in_features, num_levels)
        self.strides = tuple(level.stride for level in used)
        self.output_size = pair(output_size)
        self.sampling_ratio, self.aligned = sampling_ratio, aligned
        self.aggregation, self.roi_scale_factor = aggregation, roi_scale_factor
        self.out_channels = channels * (len(used) if aggregation == "concat" else 1)
        self.pre_module = (
            None if pre_kernel_size is None else ConvNormAct(channels, channels, pre_kernel_size)
        )

    def forward(
        self, features: tuple[Tensor, ...], boxes: Float[Tensor, "P 4"], image: Int[Tensor, "P"]
    ) -> Float[Tensor, "P C h w"]:
        """See :class:`~detcore.interfaces.RoIExtractor`."""
        if self.roi_scale_factor != 1:
            boxes = rescale(boxes, self.roi_scale_factor)
        pooled = [
            align(feature, boxes, image, stride, self.output_size, self.sampling_ratio, self.aligned)
            for feature, stride in zip(features, self.strides, strict=False)  # the coarsest are not used
        ]
        if self.pre_module is not None:
            pooled = [self.pre_module(level) for level in pooled]
        return torch.cat(pooled, 1) if self.aggregation == "concat" else torch.stack(pooled).sum(0)
