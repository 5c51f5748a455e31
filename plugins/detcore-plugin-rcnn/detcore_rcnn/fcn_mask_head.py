"""The mask head of Mask R-CNN."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from detcore_losses import CrossEntropyLoss
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from detcore.component import Part, make, wired
from detcore.distributed import mean_count
from detcore.interfaces import ClassificationLoss, MaskHead
from detcore.interfaces.bbox_head import RoISize
from detcore.layers import ConvNormAct, NormName
from detcore.structures import Losses
from detcore_rcnn.box_losses import of_class

_Width = Annotated[int, Field(ge=1)]


class FCNMaskHead(MaskHead):
    """Convolutions, upsampling, and one mask per class, each cell on its own against background.

    Source: He et al., Mask R-CNN (arXiv:1703.06870), whose settings are the defaults.

    Args:
        in_channels: Channels of the region features; supplied by the RoI head.
        roi_feat_size: Their (h, w), in cells; supplied by the RoI head. Masks are ``scale_factor`` times as
            large.
        num_classes: K; supplied by the detector.
        num_convs: Number of convolutions before the upsampling.
        conv_kernel_size: Side of their kernels, in cells; odd.
        conv_out_channels: Their width, and that of the upsampling.
        norm: Normalisation after each of them; None for none.
        num_groups: Groups of a "GN".
        upsample: A transposed convolution ("deconv"), interpolation, or None for none.
        scale_factor: By how much features are enlarged; unused without upsampling.
        class_agnostic: Whether all classes share one mask.
        loss_mask: Sigmoid loss on the cells of the mask of each positive's class.

    Raises:
        ConfigError: ``conv_kernel_size`` is even, or ``loss_mask`` is no sigmoid loss.
    """

    #: Names in MMDetection's checkpoints -> names here.
    reference_names: ClassVar[tuple[tuple[str, str], ...]] = (
        (r"convs\.(\d+)\.(bn|gn)\.", r"convs.\1.norm."),
    )

    def __init__(
        self,
        *,
        in_channels: _Width = wired(),
        roi_feat_size: RoISize = wired(),
        num_classes: _Width = wired(),
        num_convs: Annotated[int, Field(ge=0)] = 4,
        conv_kernel_size: _Width = 3,
        conv_out_channels: _Width = 256,
        norm: NormName | None = None,
        num_groups: _Width = 32,
        upsample: Literal["deconv", "bilinear", "nearest"] | None = "deconv",
        scale_factor: _Width = 2,
        class_agnostic: bool = False,
        loss_mask: Part[ClassificationLoss] = CrossEntropyLoss.spec(use_sigmoid=True),
    ) -> None:
        super().__init__()
        if conv_kernel_size % 2 == 0:
            raise ValueError(f"conv_kernel_size should be odd, got {conv_kernel_size}")
        self.loss_mask = make(loss_mask)
        if self.loss_mask.channels(1) != 1:
            raise ValueError(
                "loss_mask should be a sigmoid loss, one logit per cell; "
                f"{type(self.loss_mask).__name__} wants {self.loss_mask.channels(1)}; use_sigmoid=True helps"
            )
        self.upsample_mode, self.scale_factor = upsample, scale_factor
        channels = [in_channels] + [conv_out_channels] * num_convs
        self.convs = nn.Sequential(
            *(
                ConvNormAct(
                    channels[i], conv_out_channels, conv_kernel_size, norm=norm, num_groups=num_groups
                )
                for i in range(num_convs)
            )
        )
        width = channels[-1]
        self.upsample = None
        if upsample == "deconv":
            self.upsample = nn.ConvTranspose2d(width, conv_out_channels, scale_factor, stride=scale_factor)
            width = conv_out_channels
        self.conv_logits = nn.Conv2d(width, 1 if class_agnostic else num_classes, 1)
        self._initialise()

    def forward(self, features: Float[Tensor, "P F h w"]) -> Float[Tensor, "P A H W"]:
        """See :class:`~detcore.interfaces.MaskHead`."""
        x = self.convs(features)
        if self.upsample is not None:
            x = F.relu(self.upsample(x))
        elif self.upsample_mode is not None and len(x):  # interpolation refuses no rows
            x = F.interpolate(x, scale_factor=self.scale_factor, mode=self.upsample_mode)
        elif self.upsample_mode is not None:
            x = x.new_zeros(0, x.shape[1], *(side * self.scale_factor for side in x.shape[2:])) + x.sum()
        return self.conv_logits(x)  # type: ignore[no-any-return]

    def loss(
        self, logits: Float[Tensor, "P A H W"], labels: Int[Tensor, "P"], masks: Float[Tensor, "P H W"]
    ) -> Losses:
        """Term ``loss_mask``, the mean over cells; see :class:`~detcore.interfaces.MaskHead`."""
        own = of_class(logits, labels)
        cells = mean_count(own.new_tensor(own.numel()))
        loss = self.loss_mask(own.reshape(-1, 1), masks.reshape(-1, 1).to(own.dtype), avg_factor=cells)
        return Losses({"loss_mask": loss})

    def masks(self, logits: Float[Tensor, "P A H W"], labels: Int[Tensor, "P"]) -> Float[Tensor, "P H W"]:
        """See :class:`~detcore.interfaces.MaskHead`."""
        return self.loss_mask.scores(of_class(logits, labels)[..., None])[..., 0]

    def _initialise(self) -> None:
        """Random weights after He, no biases."""
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
