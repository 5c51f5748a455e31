"""What holds for every block."""

import pytest
import torch
from detcore_blocks import (
    ASPP,
    CBAM,
    DCN,
    RFB,
    SPP,
    ContextBlock,
    DCNv2,
    DropBlock,
    Dropout,
    GeneralizedAttention,
    NonLocal2d,
    SELayer,
)

from detcore.serialize import build, dump

ATTENTION = ["1111", "1000", "0100", "0010", "0001", "1010", "0101", "1100", "0011"]
SPECS = {
    "aspp": ASPP.spec(),
    "aspp-wide": ASPP.spec(branch_channels=3, dilations=(2, 4, 1)),
    "cbam": CBAM.spec(ratio=4, kernel_size=3),
    "context": ContextBlock.spec(ratio=0.25),
    "context-mul": ContextBlock.spec(ratio=0.25, fusion_types=("channel_mul",), pooling_type="avg"),
    "context-both": ContextBlock.spec(ratio=0.25, fusion_types=("channel_add", "channel_mul")),
    "dcn": DCN.spec(deform_groups=2),
    "dcn-dilated": DCN.spec(dilation=2, groups=2, bias=True),
    "dcnv2": DCNv2.spec(deform_groups=2, bias=True),
    "dropout": Dropout.spec(),
    "drop-block": DropBlock.spec(block_size=3, warmup_iters=0),
    "rfb": RFB.spec(ratio=2),
    "se": SELayer.spec(ratio=4),
    "se-hard": SELayer.spec(ratio=2, gate="HardSigmoid"),
    "spp": SPP.spec(kernel_sizes=(3, 5)),
    **{f"non-local-{m}": NonLocal2d.spec(mode=m) for m in
       ("embedded_gaussian", "gaussian", "dot_product", "concatenation")},
    "non-local-sub": NonLocal2d.spec(sub_sample=True, norm="BN", zeros_init=False),
    **{f"attention-{t}": GeneralizedAttention.spec(num_heads=2, attention_type=t) for t in ATTENTION},
    "attention-strided": GeneralizedAttention.spec(num_heads=4, kv_stride=1, q_stride=2),
    "attention-near": GeneralizedAttention.spec(num_heads=2, spatial_range=1),
    "attention-transposed": GeneralizedAttention.spec(num_heads=2, attention_type="0100", transposed_query=True),
}  # fmt: skip
every = pytest.mark.parametrize("name", list(SPECS))


def made(name, **supplied):
    torch.manual_seed(0)
    return SPECS[name].build(in_channels=8, **supplied)


def lively(name):
    """With random values also where there are zeros at first."""
    block = made(name)
    generator = torch.Generator().manual_seed(1)
    for parameter in block.parameters():
        parameter.data = parameter.data + 0.3 * torch.randn(parameter.shape, generator=generator)
    return block


def features(*shape, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(2), dtype=dtype)


@every
@pytest.mark.parametrize("size", [(6, 6), (1, 1), (1, 7), (2, 3)])
def test_the_size_stays(name, size):
    if "transposed" in name and size[0] != size[1]:
        return
    block = lively(name).eval()
    out = block(features(2, 8, *size))
    assert out.shape == (2, block.out_channels, *size)
    assert out.isfinite().all()
    assert block.stride == 1


@every
def test_an_empty_batch_stays_empty(name):
    block = lively(name)
    for mode in (True, False):
        out = block.train(mode)(features(0, 8, 6, 6))
        assert out.shape == (0, block.out_channels, 6, 6)


@every
def test_a_batch_is_its_images(name):
    block, x = lively(name).eval(), features(3, 8, 6, 6)
    torch.testing.assert_close(block(x), torch.cat([block(one[None]) for one in x]), rtol=1e-4, atol=1e-5)


@every
def test_gradients_are_finite_and_everywhere(name):
    block, x = lively(name).train(), features(2, 8, 6, 6).requires_grad_()
    block(x).square().mean().backward()
    assert x.grad.isfinite().all()
    for path, parameter in block.named_parameters():
        assert parameter.grad is not None, path
        assert parameter.grad.isfinite().all(), path


@pytest.mark.parametrize("name", ["dcn", "dcnv2", "context-both", "non-local-sub", "attention-1111",
                                  "attention-0101", "cbam", "aspp"])  # fmt: skip
def test_gradients_are_right(name):
    block = lively(name).double().eval()
    x = features(1, 8, 4, 3, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(block, x, fast_mode=True, atol=1e-4)


@pytest.mark.parametrize("name", ["context", "non-local-embedded_gaussian", "non-local-gaussian",
                                  "non-local-dot_product", "non-local-concatenation", "attention-1111"])  # fmt: skip
def test_it_begins_as_the_identity(name):
    x = features(2, 8, 6, 6)
    torch.testing.assert_close(made(name).train()(x), x)


@pytest.mark.parametrize("name", ["dropout", "drop-block"])
def test_it_is_the_identity_in_evaluation(name):
    x = features(2, 8, 6, 6)
    assert torch.equal(made(name).eval()(x), x)


@every
def test_evaluation_leaves_the_state(name):
    block = lively(name).eval()
    before = {key: value.clone() for key, value in block.state_dict().items()}
    x = features(2, 8, 6, 6)
    kept = x.clone()
    block(x)
    assert torch.equal(x, kept)
    assert all(torch.equal(value, before[key]) for key, value in block.state_dict().items())


@every
def test_it_comes_back_from_its_configuration(name):
    config = dump(made(name))
    assert config["type"].startswith("detcore-plugin-blocks:")
    assert dump(build(config)) == config


@every
def test_autocast_gives_finite_gradients(name):
    block, x = lively(name).train(), features(2, 8, 6, 6).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        out = block(x)
    out.float().square().mean().backward()
    assert x.grad.isfinite().all()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["aspp", "cbam", "context-both", "dcn", "dcnv2", "drop-block", "rfb", "se", "spp",
                                  "non-local-sub", "attention-1111", "attention-near"])  # fmt: skip
def test_it_compiles(name):
    block, x = lively(name).eval(), features(2, 8, 6, 6)
    with torch.no_grad():
        torch.testing.assert_close(torch.compile(block, fullgraph=True)(x), block(x), rtol=1e-4, atol=1e-4)
