import pytest
import torch
from detcore_coders import BucketingBBoxCoder

from detcore import build, dump
from detcore.errors import ConfigError

ANCHOR = [[10.0, 20.0, 30.0, 60.0]]


def coder(**kwargs):
    """Six strips per axis, three buckets per side."""
    return BucketingBBoxCoder(**{"num_buckets": 6, "scale_factor": 1.5, **kwargs})


def split(codes):
    """[..., what, side, bucket]; sides are left, right, top, bottom."""
    return codes.unflatten(-1, (2, 4, 3))


def test_by_hand(priors):
    # enlarged to 5..35 x 10..70: strips of 5 and 10 pixels; middles at 7.5, 12.5, 17.5 from the left
    encoded = coder().encode(priors(ANCHOR), torch.tensor([[11.0, 15, 33, 50]]))
    labels, offsets = split(encoded.values)[0]
    assert labels.tolist() == [[0, 1, 0], [1, 0, 0], [1, 0, 0], [0, 1, 0]]
    expected = torch.tensor([[-0.7, 0.3, 1.3], [-0.1, -1.1, -2.1], [0, 1, 2], [1.5, 0.5, -0.5]])
    torch.testing.assert_close(offsets, expected)
    class_weights, offset_weights = split(encoded.weights)[0]
    # neighbours less than a strip away are left out; the second nearest offset counts below 1
    assert class_weights.tolist() == [[0, 1, 1], [1, 1, 1], [1, 1, 1], [1, 1, 0]]
    assert offset_weights.tolist() == [[1, 1, 0], [1, 0, 0], [1, 0, 0], [0, 1, 1]]


def test_of_two_buckets_as_near_the_outer_one():
    from detcore.structures import Priors

    whole = Priors(torch.tensor([[0.0, 0, 60, 60]]), torch.zeros(1, 2))
    encoded = coder(scale_factor=1.0).encode(whole, torch.tensor([[10.0, 10, 50, 50]]))
    assert split(encoded.values)[0, 0].argmax(-1).tolist() == [0, 0, 0, 0]


def test_neighbours_may_count(priors):
    weights = (
        coder(cls_ignore_neighbor=False).encode(priors(ANCHOR), torch.tensor([[11.0, 15, 33, 50]])).weights
    )
    assert (split(weights)[0, 0] == 1).all()


@pytest.mark.parametrize(("topk", "upper", "count"), [(1, 1.0, 4), (3, 9.0, 12), (2, 0.0, 4)])
def test_offsets_of_so_many_buckets_count(priors, topk, upper, count):
    made = coder(offset_topk=topk, offset_upperbound=upper)
    weights = made.encode(priors(ANCHOR), torch.tensor([[11.0, 15, 33, 50]])).weights
    assert split(weights)[0, 1].sum() == count


def test_decode_inverts_encode(priors, boxes):
    near, anchors = boxes(30), priors(boxes(30))
    given = near + torch.randn(30, 4)
    values = coder().encode(anchors, given).values
    # labels in place of logits: the nearest bucket has the highest
    torch.testing.assert_close(coder().decode(anchors, values), given, rtol=1e-4, atol=1e-3)


def test_sizes():
    made = coder()
    assert made.code_size == made.target_size == 24
    assert BucketingBBoxCoder(num_buckets=7, scale_factor=1.0).code_size == 32


def test_batches_equal_singles(priors, boxes):
    anchors, images = priors(boxes(5)), boxes(3, 5, seed=1)
    sizes = torch.tensor([[30, 50], [60, 20], [90, 90]])
    together = coder().encode(anchors, images)
    singles = [coder().encode(anchors, image) for image in images]
    assert together.values.equal(torch.stack([s.values for s in singles]))
    assert together.weights.equal(torch.stack([s.weights for s in singles]))
    codes = torch.randn(3, 5, 24)
    decoded = [coder().decode(anchors, c, s) for c, s in zip(codes, sizes, strict=True)]
    assert coder().decode(anchors, codes, sizes).equal(torch.stack(decoded))


@pytest.mark.parametrize(("legacy", "margin"), [(False, 0), (True, 1)])
def test_clipping(priors, boxes, legacy, margin):
    anchors, codes, size = priors(boxes(20)), torch.randn(20, 24), torch.tensor([60, 40])
    free = coder(clip_border=False).decode(anchors, codes, size)
    limits = torch.tensor([40, 60, 40, 60]) - margin
    found = coder(legacy_clip=legacy).decode(anchors, codes, size)
    assert found.equal(free.clamp(min=0).minimum(limits))


def test_confidence():
    logits = torch.tensor([0.7, 0.2, 0.1]).log()
    apart = torch.tensor([0.6, 0.1, 0.3]).log()  # the two best are no neighbours
    codes = torch.stack((torch.stack((logits, logits, apart, apart)), torch.zeros(4, 3))).flatten()
    assert coder().confidence(codes[None]).item() == pytest.approx((0.9 + 0.9 + 0.6 + 0.6) / 4)


@pytest.mark.parametrize("shape", [(0,), (2, 0)])
def test_empty(priors, boxes, shape):
    anchors = priors(boxes(0))
    encoded = coder().encode(anchors, boxes(*shape))
    assert encoded.values.shape == encoded.weights.shape == (*shape, 24)
    assert coder().decode(anchors, torch.zeros(*shape, 24)).shape == (*shape, 4)
    assert coder().confidence(torch.zeros(*shape, 24)).shape == shape


def test_degenerate_boxes_and_priors_stay_finite(priors):
    every = torch.tensor([[0.0, 0, 0, 0], [10, 20, 10, 40], [30, 40, 10, 20]], requires_grad=True)
    encoded = coder().encode(priors([[5.0, 5, 5, 9]]), every)
    encoded.values.sum().backward()
    assert encoded.values.isfinite().all()
    assert every.grad.isfinite().all()
    without = coder(empty_size=0).encode(priors([[5.0, 5, 5, 9]]), every)
    assert not without.values.isfinite().all()


def test_gradients(priors, boxes):
    anchors = priors(boxes(3), torch.float64)
    codes = torch.randn(3, 24, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda c: coder().decode(anchors, c), codes)
    assert torch.autograd.gradcheck(lambda c: coder().confidence(c), codes)


def test_config_round_trip():
    assert dump(build(dump(coder(legacy_clip=True)))) == dump(coder(legacy_clip=True))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"num_buckets": 2}, r"num_buckets: input should be greater than or equal to 3; got 2"),
        (
            {"offset_topk": 4},
            r"offset_topk=4 is more than the 3 buckets that each side has with num_buckets=6",
        ),
        ({"scale_factor": 0}, r"scale_factor: input should be greater than 0; got 0"),
    ],
)
def test_messages(kwargs, message):
    with pytest.raises(ConfigError, match=message):
        coder(**kwargs)


def test_codes_of_another_size_are_refused(priors):
    with pytest.raises(
        ValueError, match=r"codes should have shape \[..., 24\] with num_buckets=6, got \[1, 4\]"
    ):
        coder().decode(priors(ANCHOR), torch.zeros(1, 4))
