"""Examples of this plugin's components for the conformance kit."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from detcore.hooks import hookimpl

if TYPE_CHECKING:
    from detcore.testing import Subject


@hookimpl
def detcore_conformance_examples() -> Iterable[Subject]:
    """Every block at 8 channels, what it is zero at first included."""
    import detcore_blocks as b
    from detcore.testing import Subject

    return [
        Subject(b.ASPP.spec()),
        Subject(b.CBAM.spec(ratio=2, kernel_size=3)),
        Subject(b.ContextBlock.spec(ratio=0.5, fusion_types=("channel_add", "channel_mul"))),
        Subject(b.ContextBlock.spec(ratio=0.5, pooling_type="avg"), name="mean"),
        Subject(b.DCN.spec(deform_groups=2)),
        Subject(b.DCN.spec(stride=2, dilation=2, groups=2), name="strided"),
        Subject(b.DCNv2.spec(deform_groups=2, bias=True)),
        Subject(b.Dropout.spec()),
        Subject(b.DropBlock.spec(block_size=3, warmup_iters=0)),
        Subject(b.GeneralizedAttention.spec(num_heads=2)),
        Subject(b.GeneralizedAttention.spec(num_heads=2, attention_type="0010"), name="keys"),
        Subject(b.NonLocal2d.spec(sub_sample=True, norm="BN", zeros_init=False)),
        Subject(b.RFB.spec(ratio=2)),
        Subject(b.SELayer.spec(ratio=2)),
        Subject(b.SPP.spec(kernel_sizes=(3, 5))),
        Subject(b.BlockNeck.spec(blocks=(b.SELayer.spec(ratio=2), b.DCN.spec()), levels=(1, 2))),
        Subject(b.BlockSharedHead.spec(blocks=(b.ContextBlock.spec(ratio=0.5),))),
    ]
