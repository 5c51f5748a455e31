"""What holds for one of the blocks."""

import pytest
import torch
from detcore_blocks import (
    ASPP,
    CBAM,
    DCN,
    SPP,
    BlockNeck,
    BlockSharedHead,
    ContextBlock,
    DCNv2,
    DropBlock,
    Dropout,
    GeneralizedAttention,
    NonLocal2d,
    SELayer,
)
from torch.nn import functional as F

from detcore.errors import ConfigError
from detcore.serialize import build, dump
from detcore.structures import FeatureSpec


def features(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize(("stride", "dilation", "groups"), [(1, 1, 1), (2, 1, 2), (1, 2, 1), (2, 2, 4)])
def test_deformable_convolutions_begin_as_common_ones(stride, dilation, groups):
    x, options = (
        features(2, 8, 7, 6),
        {"stride": stride, "padding": dilation, "dilation": dilation, "groups": groups},
    )
    for cls, factor in ((DCN, 1.0), (DCNv2, 0.5)):
        block = cls(in_channels=8, out_channels=12, stride=stride, dilation=dilation, groups=groups)
        expected = factor * F.conv2d(x, block.weight, **options)
        torch.testing.assert_close(block(x), expected, rtol=1e-4, atol=1e-5)


def test_offsets_move_what_is_seen():
    block = DCN(in_channels=1, kernel_size=1)
    block.weight.data.fill_(1.0)
    block.conv_offset.bias.data = torch.tensor([0.0, 1.0])  # (y, x)
    x = features(1, 1, 4, 5)
    torch.testing.assert_close(block(x)[..., :-1], x[..., 1:])
    assert block(x)[..., -1].eq(0).all()


def test_the_factor_of_version_two_weighs():
    block = DCNv2(in_channels=1, kernel_size=1)
    block.weight.data.fill_(1.0)
    block.conv_offset.bias.data[2] = 1.0
    x = features(1, 1, 4, 5)
    torch.testing.assert_close(block(x), x * torch.tensor(1.0).sigmoid())


@pytest.mark.parametrize(
    ("cls", "arguments", "message"),
    [
        (DCN, {"deform_groups": 3}, "deform_groups=3 does not divide in_channels=8"),
        (DCNv2, {"groups": 2, "out_channels": 3}, "groups=2 does not divide out_channels=3"),
        (DCN, {"kernel_size": 2}, "a side of 2 cells has no middle"),
        (ContextBlock, {}, "ratio=0.0625 leaves no channel of 8"),
        (ContextBlock, {"ratio": 1, "fusion_types": ()}, r"fusion_types=\(\) should be"),
        (NonLocal2d, {"reduction": 9}, "reduction=9 leaves no channel of 8"),
        (SELayer, {}, "ratio=16 leaves no channel of 8"),
        (CBAM, {"ratio": 2, "kernel_size": 4}, "a side of 4 cells has no middle"),
        (ASPP, {"dilations": (1, 3)}, r"dilations=\(1, 3\) should be two or more"),
        (ASPP, {"dilations": (1, 3, 1)}, "in_channels=8 cannot be shared by 3 branches; give branch_channels"),
        (GeneralizedAttention, {"num_heads": 3}, "num_heads=3 does not divide the 8 channels"),
        (GeneralizedAttention, {"num_heads": 2, "attention_type": "0000"}, "switches every term off"),
        (GeneralizedAttention, {"num_heads": 2, "attention_type": "11"}, "attention_type"),
        (GeneralizedAttention, {"num_heads": 2, "position_embedding_dim": 6}, "should be a multiple of 4"),
        (GeneralizedAttention, {"num_heads": 2, "transposed_query": True}, "is for attention_type='.1.0' only"),
        (SPP, {"kernel_sizes": ()}, "kernel_sizes"),
        (Dropout, {"p": 1.0}, "less than 1"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(cls, arguments, message):
    with pytest.raises(ConfigError, match=message):
        cls(in_channels=8, **arguments)


def test_the_context_is_the_mean_where_all_cells_count_alike():
    torch.manual_seed(0)
    attended, mean = (ContextBlock(in_channels=4, ratio=1, pooling_type=t) for t in ("att", "avg"))
    attended.channel_add_conv[3].weight.data.normal_()
    mean.load_state_dict({k: v for k, v in attended.state_dict().items() if "mask" not in k})
    attended.conv_mask.weight.data.zero_()
    x = features(2, 4, 3, 5)
    torch.testing.assert_close(attended(x), mean(x))
    assert not torch.equal(mean(x), x)


@pytest.mark.parametrize("mode", ["embedded_gaussian", "gaussian"])
def test_softmaxes_of_affinities_sum_to_one(mode):
    affinity = NonLocal2d(in_channels=4, mode=mode, sub_sample=True).affinity(features(2, 4, 4, 6))
    assert affinity.shape == (2, 24, 6)
    torch.testing.assert_close(affinity.sum(-1), torch.ones(2, 24))


@torch.no_grad()
def test_concatenated_affinities_are_a_map_of_both():
    torch.manual_seed(0)
    block, x = NonLocal2d(in_channels=4, mode="concatenation"), features(1, 4, 2, 3)
    theta, phi = block.theta(x).flatten(2)[0], block.phi(x).flatten(2)[0]  # [2, 6]
    weight = block.concat_project.conv.weight.flatten()
    expected = [
        [(weight @ torch.cat((theta[:, i], phi[:, j]))).relu() / 6 for j in range(6)] for i in range(6)
    ]
    torch.testing.assert_close(block.affinity(x)[0], torch.tensor(expected))


def test_attention_in_range_stays_there():
    torch.manual_seed(0)
    block = GeneralizedAttention(in_channels=8, num_heads=2, spatial_range=0, kv_stride=1).double()
    block.gamma.data.fill_(1.0)
    x = features(1, 8, 4, 4).double().requires_grad_()
    (gradient,) = torch.autograd.grad(block(x)[0, :, 1, 2].sum(), x)
    seen = gradient[0].abs().sum(0) > 1e-12
    assert seen.nonzero().tolist() == [[1, 2], [1, 3], [2, 2], [2, 3]]


def test_the_kept_share_of_drop_block_is_right_and_scaled():
    torch.manual_seed(0)
    block = DropBlock(in_channels=4, drop_prob=0.2, block_size=3, warmup_iters=0).train()
    out = block(torch.ones(50, 4, 16, 16))
    assert abs(float((out == 0).float().mean()) - 0.2) < 0.03
    assert float(out.mean()) == pytest.approx(1.0, abs=1e-4)


def test_drop_block_drops_squares():
    torch.manual_seed(0)
    block = DropBlock(in_channels=1, drop_prob=0.02, block_size=3, warmup_iters=0).train()
    out = block(torch.ones(20, 1, 12, 12))[:, 0]
    dropped = (out == 0).float()
    centres = F.avg_pool2d(dropped[:, None], 3, 1) == 1
    grown = F.max_pool2d(F.pad(centres.float(), [1] * 4), 3, 1, 1)[:, 0]
    assert dropped.sum() > 0
    assert torch.equal(grown, dropped)


def test_drop_block_follows_its_schedule():
    block = DropBlock(in_channels=1, drop_prob=0.5, block_size=1, warmup_iters=10).train()
    x, shares = torch.ones(1, 1, 60, 60), []
    torch.manual_seed(0)
    assert torch.equal(block(x), x)
    for step in (0, 5, 10, 100):
        block.on_progress(0, step)
        shares.append(float((block(x) == 0).float().mean()))
    assert shares[0] == 0
    assert shares[1:] == pytest.approx([0.25, 0.5, 0.5], abs=0.03)
    assert block.state_dict() == {}


def test_dropout_drops_values_or_channels():
    torch.manual_seed(0)
    x = torch.ones(2, 8, 6, 6)
    values, channels = (Dropout(in_channels=8, channels=c).train()(x) for c in (False, True))
    assert set(values.unique().tolist()) == set(channels.unique().tolist()) == {0.0, 2.0}
    assert values.flatten(2).std(-1).gt(0).all()
    assert channels.flatten(2).std(-1).eq(0).all()


PYRAMID = (FeatureSpec(8, 4), FeatureSpec(16, 8), FeatureSpec(16, 16))


def test_a_pyramid_gets_blocks_on_the_levels_that_are_named():
    neck = BlockNeck(
        in_features=PYRAMID, blocks=(SELayer.spec(ratio=2), ASPP.spec(branch_channels=3)), levels=(0, 2)
    )
    assert neck.out_features == (FeatureSpec(12, 4), FeatureSpec(16, 8), FeatureSpec(12, 16))
    levels = [features(1, f.channels, 32 // f.stride, 32 // f.stride) for f in PYRAMID]
    out = neck(tuple(levels))
    assert [level.shape[1] for level in out] == [12, 16, 12]
    assert torch.equal(out[1], levels[1])
    assert dump(build(dump(neck))) == dump(neck)


def test_blocks_follow_another_neck():
    inner = BlockNeck.spec(blocks=(ASPP.spec(branch_channels=1),))
    neck = BlockNeck(in_features=PYRAMID, neck=inner, blocks=(SELayer.spec(ratio=2),))
    assert neck.out_features == tuple(FeatureSpec(4, f.stride) for f in PYRAMID)
    with pytest.raises(ConfigError, match=r"levels=\(3,\): there are 3 of them, counted from 0"):
        BlockNeck(in_features=PYRAMID, blocks=(Dropout.spec(),), levels=(3,))
    with pytest.raises(ConfigError, match="DCN has stride 2; the size has to stay"):
        BlockNeck(in_features=PYRAMID, blocks=(DCN.spec(stride=2),))
    with pytest.raises(ConfigError, match=r"blocks\.0: .*ratio=16 leaves no channel of 8"):
        BlockNeck(in_features=PYRAMID, blocks=(SELayer.spec(),))


def test_region_features_get_blocks():
    head = BlockSharedHead(
        in_channels=8, roi_feat_size=7, blocks=(ASPP.spec(branch_channels=3), SELayer.spec(ratio=2))
    )
    assert (head.out_channels, head.output_size) == (12, (7, 7))
    assert head.eval()(features(5, 8, 7, 7)).shape == (5, 12, 7, 7)
    assert head(features(0, 8, 7, 7)).shape == (0, 12, 7, 7)
    assert dump(build(dump(head))) == dump(head)
