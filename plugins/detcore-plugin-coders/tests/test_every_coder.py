"""What holds for every coder of this package."""

import copy
import pickle

import pytest
import torch
from detcore_coders import (
    DeltaXYWHBBoxCoder,
    DistancePointBBoxCoder,
    LegacyDeltaXYWHBBoxCoder,
    PseudoBBoxCoder,
    TBLRBBoxCoder,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from detcore import build, dump, registry
from detcore.structures import Priors

CODERS = [
    pytest.param(DeltaXYWHBBoxCoder(), id="delta"),
    pytest.param(
        DeltaXYWHBBoxCoder(target_means=(0.1, -0.2, 0.3, 0.0), target_stds=(0.1, 0.1, 0.2, 0.2)),
        id="delta_norm",
    ),
    pytest.param(DeltaXYWHBBoxCoder(add_ctr_clamp=True, ctr_clamp=1000), id="delta_ctr"),
    pytest.param(DistancePointBBoxCoder(), id="distance"),
    pytest.param(
        LegacyDeltaXYWHBBoxCoder(target_stds=(0.1, 0.1, 0.2, 0.2)),
        id="legacy",
    ),
    pytest.param(PseudoBBoxCoder(), id="pseudo"),
    pytest.param(TBLRBBoxCoder(), id="tblr"),
    pytest.param(TBLRBBoxCoder(normalizer=(0.1, 0.2, 0.3, 0.4)), id="tblr_four"),
]
every_coder = pytest.mark.parametrize("coder", CODERS)
CORNERS = st.tuples(*[st.floats(-50, 200, width=32)] * 2)
EXTENTS = st.tuples(*[st.floats(2, 100, width=32)] * 2)
BOXES = st.lists(st.tuples(CORNERS, EXTENTS), min_size=1, max_size=5)


def to_boxes(drawn):
    return torch.tensor([[x, y, x + w, y + h] for (x, y), (w, h) in drawn])


@every_coder
class TestRoundTrip:
    @given(data=st.data())
    @settings(max_examples=25, deadline=None)
    def test_decode_inverts_encode(self, coder, data):
        boxes = to_boxes(data.draw(BOXES))
        near = data.draw(st.lists(st.tuples(CORNERS, EXTENTS), min_size=len(boxes), max_size=len(boxes)))
        priors = Priors(to_boxes(near), torch.ones(len(boxes), 2))
        decoded = coder.decode(priors, coder.encode(priors, boxes).values)
        torch.testing.assert_close(decoded, boxes, rtol=1e-4, atol=1e-3)

    def test_encode_inverts_decode(self, coder, priors, boxes):
        anchors, codes = priors(boxes(7).double(), torch.float64), torch.rand(7, 4).double()
        torch.testing.assert_close(coder.encode(anchors, coder.decode(anchors, codes)).values, codes)


@every_coder
class TestShapes:
    def test_sizes_and_weights(self, coder, priors, boxes):
        encoded = coder.encode(priors(boxes(3)), boxes(3, seed=1))
        assert encoded.values.shape[-1] == coder.code_size == coder.target_size == 4
        assert encoded.weights is None

    @pytest.mark.parametrize("shape", [(0,), (2, 0), (0, 3)])
    def test_empty(self, coder, priors, boxes, shape):
        anchors = priors(boxes(*shape[-1:]))
        assert coder.encode(anchors, boxes(*shape)).values.shape == (*shape, 4)
        sizes = torch.ones(shape[0], 2) if len(shape) > 1 else torch.ones(2)
        assert coder.decode(anchors, torch.zeros(*shape, 4), sizes).shape == (*shape, 4)

    def test_shared_priors_and_batches(self, coder, priors, boxes):
        anchors, images = priors(boxes(5)), boxes(3, 5, seed=1)
        sizes = torch.tensor([[30, 50], [60, 20], [90, 90]])
        together = coder.encode(anchors, images).values
        singles = [coder.encode(anchors, image).values for image in images]
        assert together.equal(torch.stack(singles))
        decoded = coder.decode(anchors, together, sizes)
        assert decoded.equal(
            torch.stack([coder.decode(anchors, c, s) for c, s in zip(singles, sizes, strict=True)])
        )

    def test_priors_by_image(self, coder, priors, boxes):
        by_image, images = boxes(3, 5), boxes(3, 5, seed=1)
        codes = coder.encode(priors(by_image), images).values
        singles = [coder.encode(priors(p), image).values for p, image in zip(by_image, images, strict=True)]
        assert codes.equal(torch.stack(singles))
        decoded = [coder.decode(priors(p), c) for p, c in zip(by_image, singles, strict=True)]
        assert coder.decode(priors(by_image), codes).equal(torch.stack(decoded))

    def test_gathered_priors(self, coder, priors, boxes):
        anchors, codes, picked = priors(boxes(6)), torch.rand(2, 6, 4), torch.tensor([[5, 0], [3, 3]])
        everything = coder.decode(anchors, codes)
        chosen = coder.decode(anchors.gather(picked), codes.gather(1, picked[..., None].expand(-1, -1, 4)))
        assert chosen.equal(everything.gather(1, picked[..., None].expand(-1, -1, 4)))

    def test_codes_by_class(self, coder, priors, boxes):
        anchors, codes = boxes(4), torch.rand(4, 3, 4)
        by_class = coder.decode(priors(anchors[:, None]), codes, torch.tensor([60, 80]))
        each = [coder.decode(priors(anchors), codes[:, k], torch.tensor([60, 80])) for k in range(3)]
        assert by_class.equal(torch.stack(each, 1))

    def test_flat_codes_by_class_are_refused(self, coder, priors, boxes):
        message = r"codes should have shape \[..., 4\], got \[4, 12\]; class-wise .* decoded as \[N, K, 4\]"
        with pytest.raises(ValueError, match=message):
            coder.decode(priors(boxes(4)), torch.rand(4, 12))
        with pytest.raises(ValueError, match=r"boxes should have shape \[..., 4\], got \[4, 5\]"):
            coder.encode(priors(boxes(4)), torch.rand(4, 5))


@every_coder
class TestNumbers:
    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
    def test_dtype_is_kept(self, coder, priors, boxes, dtype):
        anchors, targets = priors(boxes(5), dtype), boxes(5, seed=1).to(dtype)
        codes = coder.encode(anchors, targets).values
        decoded = coder.decode(anchors, codes, torch.tensor([150, 150]))
        assert codes.dtype == decoded.dtype == dtype
        assert codes.isfinite().all()
        exact = coder.decode(priors(anchors.boxes, torch.float64), codes.double(), torch.tensor([150, 150]))
        tolerance = 64 * torch.finfo(dtype).eps
        torch.testing.assert_close(decoded.double(), exact, rtol=tolerance, atol=100 * tolerance)

    def test_low_precision_codes_do_not_lower_the_priors(self, coder, priors, boxes):
        assert (
            coder.decode(priors(boxes(5)), torch.zeros(2, 5, 4, dtype=torch.float16)).dtype == torch.float32
        )

    def test_gradients(self, coder, priors, boxes):
        anchors = priors(boxes(3), torch.float64)
        codes = torch.rand(2, 3, 4, dtype=torch.float64, requires_grad=True)
        targets = boxes(2, 3, seed=1, dtype=torch.float64).requires_grad_()
        sizes = torch.tensor([[120, 90], [70, 80]])
        assert torch.autograd.gradcheck(lambda c: coder.decode(anchors, c), codes)
        assert torch.autograd.gradcheck(lambda c: coder.decode(anchors, c, sizes), codes)
        assert torch.autograd.gradcheck(lambda b: coder.encode(anchors, b).values, targets)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
    def test_boxes_and_priors_without_extent_stay_finite(self, coder, priors, dtype):
        some = [[0, 0, 0, 0], [10, 20, 10, 40], [10, 20, 30, 20], [10, 20, 30, 40], [30, 40, 10, 20]]
        every = torch.tensor(some, dtype=dtype)
        anchors = priors(every[:, None], dtype)
        anchors.boxes.requires_grad_()
        targets = every.clone().requires_grad_()
        codes = coder.encode(anchors, targets).values
        decoded = coder.decode(anchors, codes)
        (codes.sum() + decoded.sum()).backward()
        gradients = (
            [targets.grad] if isinstance(coder, PseudoBBoxCoder) else [anchors.boxes.grad, targets.grad]
        )
        for tensor in (codes, decoded, *gradients):
            assert tensor.isfinite().all()

    def test_padded_rows_are_zeros(self, coder, priors):
        padding = priors(torch.zeros(2, 3, 4))
        assert coder.encode(padding, torch.zeros(2, 3, 4)).values.abs().max() <= 3  # the means over the stds
        assert coder.decode(padding, torch.zeros(2, 3, 4)).abs().max() == 0

    def test_clipping(self, coder, priors, boxes):
        anchors, codes = priors(boxes(50)), torch.rand(2, 50, 4) * 3
        if isinstance(coder, PseudoBBoxCoder):
            codes = codes * 40
        height, width = 60, 40
        free = coder.decode(anchors, codes)
        clipped = coder.decode(anchors, codes, torch.tensor([[height, width], [10**6, 10**6]]))
        # in the legacy coordinates the last pixel is the limit
        limits = torch.tensor([width, height, width, height]) - int(
            isinstance(coder, LegacyDeltaXYWHBBoxCoder)
        )
        assert clipped[0].equal(free[0].clamp(min=0).minimum(limits))
        assert clipped[1].equal(free[1].clamp(min=0))
        assert (clipped[0] == limits).any()
        unclipped = type(coder)(clip_border=False).decode(anchors, codes, torch.tensor([height, width]))
        assert unclipped.equal(type(coder)().decode(anchors, codes))

    def test_compiled(self, coder, priors, boxes):
        anchors, sizes = priors(boxes(5)), torch.tensor([[60, 40], [80, 90]])
        images = boxes(2, 5, seed=1)

        def there_and_back(targets):
            codes = coder.encode(anchors, targets).values
            return codes, coder.decode(anchors, codes, sizes)

        compiled = torch.compile(there_and_back, fullgraph=True, backend="eager")
        for actual, expected in zip(compiled(images), there_and_back(images), strict=True):
            torch.testing.assert_close(actual, expected)

    def test_arguments_are_not_written_to(self, coder, priors, boxes):
        anchors, targets, codes = priors(boxes(5)), boxes(5, seed=1), torch.rand(5, 4)
        before = [t.clone() for t in (anchors.boxes, targets, codes)]
        coder.encode(anchors, targets)
        coder.decode(anchors, codes, torch.tensor([10, 10]))
        assert all(a.equal(b) for a, b in zip((anchors.boxes, targets, codes), before, strict=True))


@every_coder
def test_copies_and_registration(coder, priors, boxes):
    codes = torch.rand(4, 4)
    for copied in (copy.deepcopy(coder), pickle.loads(pickle.dumps(coder)), build(dump(coder))):
        assert copied.decode(priors(boxes(4)), codes).equal(coder.decode(priors(boxes(4)), codes))
    assert registry.resolve("bbox_coders", type(coder).__name__) is type(coder)
