"""DropBlock."""

from __future__ import annotations

from typing import Annotated

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from detcore.component import wired
from detcore.interfaces import Block
from detcore_blocks.sizes import OddSize


class DropBlock(Block):
    """Drops random squares of a feature map in training, and scales the rest up; the identity in evaluation.

    Neighbouring cells tell much the same, so single dropped values are no loss; squares are. The probability
    grows linearly during the first steps of training, as told by ``on_progress``.

    Source: Ghiasi et al., DropBlock (arXiv:1810.12890).

    Shapes: [B, C, H, W] to the same.

    Args:
        in_channels: C; supplied by the owner.
        drop_prob: Share of the cells that are dropped once the schedule is over.
        block_size: Side of the squares, in cells; odd. On smaller feature maps as large as fits.
        warmup_iters: Steps of training in which the share grows from 0; with 0 it has its value at once.
    """

    scale: Tensor

    def __init__(
        self,
        *,
        in_channels: Annotated[int, Field(ge=1)] = wired(),
        drop_prob: Annotated[float, Field(ge=0, lt=1)] = 0.1,
        block_size: OddSize = 7,
        warmup_iters: Annotated[int, Field(ge=0)] = 2000,
    ) -> None:
        super().__init__()
        self.out_channels, self.drop_prob, self.block_size = in_channels, drop_prob, block_size
        self.warmup_iters = warmup_iters
        # a buffer, so that a compiled forward sees its changes; not saved, progress is told again on resuming
        self.register_buffer("scale", torch.tensor(0.0 if warmup_iters else 1.0), persistent=False)

    def on_progress(self, epoch: int, step: int) -> None:
        """Sets the share for this step of training.

        Args:
            epoch: Epochs completed; makes no difference.
            step: Steps completed since the beginning of training.
        """
        self.scale.fill_(min(1.0, step / self.warmup_iters) if self.warmup_iters else 1.0)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """The features, squares of them dropped in training."""
        if not self.training or self.drop_prob == 0 or 0 in x.shape:
            return x
        height, width = x.shape[-2:]
        size = min(self.block_size, height - (height + 1) % 2, width - (width + 1) % 2)
        rows, columns = height - size + 1, width - size + 1  # centres whose square lies inside
        # so many centres that, squares not overlapping, the share of the cells is dropped (equation 1)
        rate = self.drop_prob * self.scale * (height * width) / (size**2 * rows * columns)
        centres = torch.rand(*x.shape[:2], rows, columns, device=x.device) < rate
        dropped = F.max_pool2d(F.pad(centres.float(), [size // 2] * 4), size, stride=1, padding=size // 2)
        kept = (1 - dropped).to(x.dtype)
        return x * kept * (kept.numel() / kept.float().sum().clamp(min=1)).to(x.dtype)
