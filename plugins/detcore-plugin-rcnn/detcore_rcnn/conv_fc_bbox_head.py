"""Box heads of convolutions and fully connected layers."""

from __future__ import annotations

from typing import Annotated, ClassVar

from detcore_coders import DeltaXYWHBBoxCoder
from detcore_losses import CrossEntropyLoss, L1Loss
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from detcore import dense
from detcore.component import Part, make, wired
from detcore.interfaces import BBoxCoder, BBoxHead, BoxLoss, ClassificationLoss
from detcore.interfaces.bbox_head import BBoxOutput, RoISample, RoISize
from detcore.layers import NormName
from detcore.linear import linear
from detcore.structures import Losses
from detcore_rcnn.box_losses import region_losses, regions_as_priors

_Count = Annotated[int, Field(ge=0)]
_Width = Annotated[int, Field(ge=1)]


class ConvFCBBoxHead(BBoxHead):
    r"""Shared convolutions and fully connected layers, then some of their own for classes and for boxes.

    ::

        features -> shared convs -> shared fcs -> cls convs -> cls fcs -> logits
                                              \-> reg convs -> reg fcs -> codes

    Without any layer, logits and codes are linear in the features: Fast R-CNN's head (arXiv:1504.08083).

    Args:
        in_channels: Channels of the region features; supplied by the RoI head.
        roi_feat_size: Their (h, w), in cells; supplied by the RoI head.
        num_classes: K; supplied by the detector.
        num_shared_convs: 3x3 convolutions that both branches share.
        num_shared_fcs: Fully connected layers that both share; excludes convolutions in the branches.
        num_cls_convs: Convolutions of the classes' branch.
        num_cls_fcs: Fully connected layers of the classes' branch.
        num_reg_convs: Convolutions of the boxes' branch.
        num_reg_fcs: Fully connected layers of the boxes' branch.
        conv_out_channels: Width of the convolutions.
        fc_out_channels: Width of the fully connected layers.
        norm: Normalisation after each convolution; None for none. A "BN" that is trained sees padded rows
            too, where an image has fewer regions than the sampler may take.
        num_groups: Groups of a "GN".
        with_avg_pool: Whether features are averaged over their cells, instead of flattened, before the first
            fully connected layer.
        reg_class_agnostic: Whether all classes share one box.
        bbox_coder: What the network regresses.
        loss_cls: Loss on class logits; decides their number of channels.
        loss_bbox: Loss on the positives' codes or boxes.
        reg_decoded_bbox: Whether ``loss_bbox`` gets decoded boxes; None means as the loss works.

    Raises:
        ConfigError: Shared fully connected layers are followed by convolutions.
    """

    #: Names in MMDetection's checkpoints -> names here.
    reference_names: ClassVar[tuple[tuple[str, str], ...]] = (
        (r"_convs\.(\d+)\.(bn|gn)\.", r"_convs.\1.norm."),
    )

    def __init__(
        self,
        *,
        in_channels: _Width = wired(),
        roi_feat_size: RoISize = wired(),
        num_classes: _Width = wired(),
        num_shared_convs: _Count = 0,
        num_shared_fcs: _Count = 0,
        num_cls_convs: _Count = 0,
        num_cls_fcs: _Count = 0,
        num_reg_convs: _Count = 0,
        num_reg_fcs: _Count = 0,
        conv_out_channels: _Width = 256,
        fc_out_channels: _Width = 1024,
        norm: NormName | None = None,
        num_groups: _Width = 32,
        with_avg_pool: bool = False,
        reg_class_agnostic: bool = False,
        bbox_coder: Part[BBoxCoder] = DeltaXYWHBBoxCoder.spec(target_stds=(0.1, 0.1, 0.2, 0.2)),
        loss_cls: Part[ClassificationLoss] = CrossEntropyLoss.spec(),
        loss_bbox: Part[BoxLoss] = L1Loss.spec(),
        reg_decoded_bbox: bool | None = None,
    ) -> None:
        super().__init__()
        if num_shared_fcs and (num_cls_convs or num_reg_convs):
            raise ValueError(
                f"num_shared_fcs={num_shared_fcs} leaves no feature map for num_cls_convs={num_cls_convs} "
                f"and num_reg_convs={num_reg_convs}; use num_cls_fcs and num_reg_fcs, or no shared ones"
            )
        self.with_avg_pool = with_avg_pool
        self.num_boxes = 1 if reg_class_agnostic else num_classes
        self.bbox_coder = make(bbox_coder)
        self.loss_cls = make(loss_cls, num_classes=num_classes)
        self.loss_bbox = make(loss_bbox)
        self.compares_boxes = dense.compares_boxes(self.loss_bbox, reg_decoded_bbox)

        cells = 1 if with_avg_pool else roi_feat_size[0] * roi_feat_size[1]
        width, style = conv_out_channels, (norm, num_groups)
        self.shared_convs = dense.tower(in_channels, width, num_shared_convs, *style)
        channels = width if num_shared_convs else in_channels
        self.shared_fcs = _layers(channels * cells, fc_out_channels, num_shared_fcs)
        self.cls_convs = dense.tower(channels, width, num_cls_convs, *style)
        self.reg_convs = dense.tower(channels, width, num_reg_convs, *style)

        def size(convs: int) -> int:
            """Numbers per region that a branch's first fully connected layer sees."""
            return fc_out_channels if num_shared_fcs else (width if convs else channels) * cells

        self.cls_fcs = _layers(size(num_cls_convs), fc_out_channels, num_cls_fcs)
        self.reg_fcs = _layers(size(num_reg_convs), fc_out_channels, num_reg_fcs)
        self.fc_cls = nn.Linear(
            fc_out_channels if num_cls_fcs else size(num_cls_convs), self.loss_cls.channels(num_classes)
        )
        self.fc_reg = nn.Linear(
            fc_out_channels if num_reg_fcs else size(num_reg_convs),
            self.num_boxes * self.bbox_coder.code_size,
        )
        self._initialise()

    def forward(self, features: Float[Tensor, "P F h w"]) -> BBoxOutput:
        """See :class:`~detcore.interfaces.BBoxHead`."""
        x = self.shared_convs(features)
        if len(self.shared_fcs):
            x = _through(self.shared_fcs, self._flat(x))
        logits = linear(self.fc_cls, _through(self.cls_fcs, self._flat(self.cls_convs(x))))
        codes = linear(self.fc_reg, _through(self.reg_fcs, self._flat(self.reg_convs(x))))
        return BBoxOutput(logits, codes.reshape(-1, self.num_boxes, self.bbox_coder.code_size))

    def loss(self, output: BBoxOutput, sample: RoISample) -> Losses:
        """Terms ``loss_cls`` and ``loss_bbox``; see :class:`~detcore.interfaces.BBoxHead`."""
        return region_losses(
            output, sample, self.loss_cls, self.loss_bbox, self.bbox_coder, on_boxes=self.compares_boxes
        )

    def class_losses(self, output: BBoxOutput, labels: Int[Tensor, "P"]) -> Float[Tensor, "P"]:
        """See :class:`~detcore.interfaces.BBoxHead`."""
        losses = self.loss_cls(output.logits, labels, reduction="none")
        # sigmoid losses give one per channel
        return losses.sum(-1) if losses.dim() > 1 else losses  # type: ignore[no-any-return]

    def scores(self, output: BBoxOutput) -> Float[Tensor, "P K"]:
        """See :class:`~detcore.interfaces.BBoxHead`."""
        return self.loss_cls.scores(output.logits)

    def decode(
        self,
        codes: Float[Tensor, "P D"],
        boxes: Float[Tensor, "P 4"],
        sizes: Int[Tensor, "P 2"] | None = None,
    ) -> Float[Tensor, "P 4"]:
        """See :class:`~detcore.interfaces.BBoxHead`."""
        return self.bbox_coder.decode(regions_as_priors(boxes), codes, sizes)

    def _flat(self, x: Tensor) -> Float[Tensor, "P F"]:
        if x.dim() > 2 and self.with_avg_pool:
            return x.mean((2, 3))
        return x.flatten(1)

    def _initialise(self) -> None:
        """Hidden layers after Glorot and He, predicting layers nearly silent, no biases."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.normal_(self.fc_cls.weight, std=0.01)
        nn.init.normal_(self.fc_reg.weight, std=0.001)


def _layers(in_size: int, width: int, count: int) -> nn.ModuleList:
    return nn.ModuleList(nn.Linear(width if i else in_size, width) for i in range(count))


def _through(layers: nn.ModuleList, x: Tensor) -> Tensor:
    for layer in layers:
        x = F.relu(linear(layer, x), inplace=True)  # type: ignore[arg-type]
    return x
