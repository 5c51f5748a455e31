"""A stage of a ResNet on the features of regions."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from detcore.component import wired
from detcore.interfaces import SharedHead
from detcore.interfaces.bbox_head import RoISize
from detcore.layers import NormName
from detcore.weights import load_weights
from detcore_resnet.blocks import BlockOptions, Style, make_stage
from detcore_resnet.norms import freeze_norms, keep_statistics
from detcore_resnet.resnet import DEPTHS, MAX_STAGES, ResNet

PositiveInt = Annotated[int, Field(ge=1)]


class ResLayer(SharedHead):
    """The last stage of a ResNet as the network that the heads of "C4" detectors share.

    In Faster R-CNN on ResNets as first published (He et al., arXiv 1512.03385, appendix A) regions are read from
    the fourth of the five stages, and the fifth runs on each region: a backbone of three residual stages, an
    extractor of 14 x 14 cells, and this. Its parameters are named ``layer{stage + 1}``, as in the whole network,
    whose pretrained weights it takes.

    Shapes: [P, in_channels, h, w] to [P, out_channels, ceil(h / stride), ceil(w / stride)].

    Args:
        in_channels: Channels of the region features; supplied by the RoI head.
        roi_feat_size: (h, w) of the region features, in cells; supplied by the RoI head.
        depth: Number of weighted layers of the network that it is a stage of.
        stage: Which stage (0-based).
        base_channels: Channels inside the blocks of that network's first stage.
        stride: Stride of the first block, in cells.
        dilation: Dilation of the 3x3 convolutions, in cells.
        style: Which convolution of a bottleneck has the stride: the 3x3 ("pytorch") or the first 1x1 ("caffe").
        avg_down: Average pooling rather than a stride in the shortcut.
        norm: Normalisation.
        num_groups: Groups of a "GN".
        norm_eps: Added to the variance in the normalisation.
        norm_requires_grad: Whether scales and offsets of the normalisation are trained.
        norm_eval: Whether BN keeps its statistics in training too: right for pretrained weights, since regions
            of one image are no independent sample; wrong from scratch.
        weights: Address of pretrained weights of the whole network (``torchvision://resnet50``, or a path), of
            which the stage's are taken.

    Raises:
        ValueError: ``num_groups`` does not divide channels.
        CheckpointError: The weights cannot be read or do not fit.
    """

    #: (regular expression, replacement) from MMDetection's weight names to ours.
    reference_names: ClassVar[tuple[tuple[str, str], ...]] = ResNet.reference_names

    def __init__(
        self,
        *,
        in_channels: PositiveInt = wired(),
        roi_feat_size: RoISize = wired(),
        depth: Literal[18, 34, 50, 101, 152],
        stage: Annotated[int, Field(ge=0, lt=MAX_STAGES)] = 3,
        base_channels: PositiveInt = 64,
        stride: PositiveInt = 2,
        dilation: PositiveInt = 1,
        style: Style = "pytorch",
        avg_down: bool = False,
        norm: NormName = "BN",
        num_groups: PositiveInt = 32,
        norm_eps: Annotated[float, Field(ge=0)] = 1e-5,
        norm_requires_grad: bool = True,
        norm_eval: bool = False,
        weights: str | None = None,
    ) -> None:
        super().__init__()
        self.norm_eval, self.stage = norm_eval, stage
        block, lengths = DEPTHS[depth]
        channels = base_channels * 2**stage
        self.out_channels = channels * block.expansion
        height, width = (-(-side // stride) for side in roi_feat_size)
        self.output_size = (height, width)
        layer = make_stage(
            block,
            in_channels,
            self.out_channels,
            channels,
            depth=lengths[stage],
            stride=stride,
            dilation=dilation,
            options=BlockOptions(style, avg_down, norm, num_groups, norm_eps),
        )
        self.add_module(f"layer{stage + 1}", layer)
        if not norm_requires_grad:
            freeze_norms(self)
        if weights is not None:
            load_weights(self, weights, renames=self.reference_names, skip=self._not_ours())
        self.train()

    def forward(self, features: Float[Tensor, "P C h w"]) -> Float[Tensor, "P D g v"]:
        """The features that the heads see."""
        stage: nn.Module = getattr(self, f"layer{self.stage + 1}")
        return stage(features)  # type: ignore[no-any-return]

    def train(self, mode: bool = True) -> ResLayer:
        """Sets the training mode, except for statistics that are kept."""
        super().train(mode)
        if self.norm_eval:
            keep_statistics(self)
        return self

    def _not_ours(self) -> tuple[str, ...]:
        """Beginnings of names in the whole network's weights that have no place here."""
        others = (f"layer{i + 1}." for i in range(MAX_STAGES) if i != self.stage)
        return ("conv1.", "bn1.", "stem.", "fc.", *others)
