"""Post-processing from scores to detections."""

import importlib.metadata
import pickle

import detcore_postprocess
import pytest
import torch
from detcore_postprocess import NMS, FastNMS, MatrixNMS, NMSPostprocess, SoftNMS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from detcore import registry
from detcore.errors import ConfigError
from detcore.structures import ImageBatch

OPTIONS = {
    "score_thr": 0.3,
    "nms_pre": 12,
    "min_bbox_size": 4.0,
    "iou_threshold": 0.4,
    "max_per_img": 20,
    "class_agnostic": False,
}


def check(found, expected):
    """Whether one image's detections are the reference's."""
    assert found.labels.tolist() == [label for _, label, _ in expected]
    assert found.scores.tolist() == pytest.approx([score for score, *_ in expected])
    boxes = torch.stack([box for *_, box in expected]) if expected else torch.zeros(0, 4)
    torch.testing.assert_close(found.boxes, boxes)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 10_000),
    changes=st.fixed_dictionaries(
        {},
        optional={
            "score_thr": st.sampled_from([0.0, 0.5, 0.9]),
            "nms_pre": st.sampled_from([1, 5, 1000]),
            "min_bbox_size": st.sampled_from([0.0, 20.0]),
            "iou_threshold": st.sampled_from([0.0, 0.7, 1.0]),
            "max_per_img": st.sampled_from([1, 3, 200]),
            "class_agnostic": st.just(True),
        },
    ),
    with_factors=st.booleans(),
    with_valid=st.booleans(),
)
def test_equals_plain_loops(reference, scene, batch_of, lookup, seed, changes, with_factors, with_valid):
    boxes, scores = scene(seed, images=2, priors=14)
    levels, options = (9, 0, 5), {**OPTIONS, **changes}
    generator = torch.Generator().manual_seed(seed)
    factors = torch.rand(2, 14, generator=generator) if with_factors else None
    valid = torch.rand(2, 14, generator=generator) > 0.3 if with_valid else None
    detections = NMSPostprocess(**options)(
        scores, lookup(boxes), batch_of(2), levels=levels, factors=factors, valid=valid
    )
    assert detections.boxes.shape == (2, options["max_per_img"], 4)
    for b, found in enumerate(detections.unpad()):
        own = [None if x is None else x[b] for x in (factors, valid)]
        check(found, reference.image(boxes[b], scores[b], levels, options, *own))


def test_padding_is_zero_and_follows_the_detections(scene, batch_of, lookup):
    boxes, scores = scene(1)
    found = NMSPostprocess(**OPTIONS)(scores, lookup(boxes), batch_of(2))
    assert 0 < found.valid.sum() < found.valid.numel()
    for column in (found.boxes, found.scores, found.labels):
        assert not column[~found.valid].any()
    assert (found.valid[:, :-1] >= found.valid[:, 1:]).all()
    assert (found.scores[:, :-1] >= found.scores[:, 1:]).all()


def test_batch_equals_singles(scene, batch_of, lookup):
    """With images as different as can be: one crowded, one with little, one with nothing, one far away."""
    boxes, scores = scene(2, images=4, priors=200)
    scores[1, 10:] = 0
    scores[2] = 0
    boxes[3] = boxes[3] * 50 - 4000
    post = NMSPostprocess(**{**OPTIONS, "nms_pre": 150})
    together = post(scores, lookup(boxes), batch_of(4), levels=(150, 50)).unpad()
    for b, found in enumerate(together):
        own, levels = boxes[b : b + 1], (150, 50)
        (alone,) = post(scores[b : b + 1], lookup(own), batch_of(1), levels=levels).unpad()
        check(found, list(zip(alone.scores.tolist(), alone.labels.tolist(), alone.boxes, strict=True)))
    assert len(together[2]) == 0
    assert len(together[3]) > 0


def test_boxes_are_clipped_by_the_decoder_before_their_size_counts(scene, lookup):
    """Images of different sizes: a box outside its image has no extent left."""
    batch = ImageBatch.of(torch.zeros(2, 3, 64, 64), sizes=[(64, 64), (32, 64)])
    boxes = torch.tensor([[[0.0, 40.0, 10.0, 60.0], [0.0, 0.0, 10.0, 10.0]]]).repeat(2, 1, 1)
    limits = batch.sizes.flip(-1).repeat(1, 2)[:, None].float()
    found = NMSPostprocess()(torch.full((2, 2, 1), 0.5), lookup(boxes.minimum(limits)), batch)
    assert found.valid.sum(1).tolist() == [2, 1]


@pytest.mark.parametrize("shape", [(2, 0, 3), (0, 5, 3), (2, 5, 3)])
def test_nothing_found(shape, batch_of):
    def decode(prior, label):
        raise AssertionError("there is nothing to decode")

    found = NMSPostprocess(max_per_img=7)(torch.zeros(shape), decode, batch_of(shape[0]))
    assert found.boxes.shape == (shape[0], 7, 4)
    assert found.labels.dtype == torch.int64
    assert not found.valid.any()


def test_hundreds_of_duplicates(batch_of, lookup):
    boxes = torch.tensor([0.0, 0.0, 20.0, 20.0]).expand(1, 900, 4)
    scores = torch.linspace(0.5, 0.9, 900)[None, :, None].expand(1, 900, 2)
    found = NMSPostprocess()(scores, lookup(boxes), batch_of(1)).unpad()[0]
    assert found.labels.tolist() == [0, 1]
    assert found.scores.tolist() == pytest.approx([0.9, 0.9])
    assert len(NMSPostprocess(class_agnostic=True)(scores, lookup(boxes), batch_of(1)).unpad()[0]) == 1


def test_ties_go_to_the_first(batch_of, lookup):
    boxes = torch.tensor([[[i * 30.0, 0.0, i * 30.0 + 20, 20.0] for i in range(8)]])
    scores = torch.full((1, 8, 2), 0.5)
    found = NMSPostprocess(max_per_img=5)(scores, lookup(boxes), batch_of(1), levels=(4, 4))
    assert found.boxes[0, :, 0].tolist() == [0, 0, 30, 30, 60]
    assert found.labels.tolist() == [[0, 1, 0, 1, 0]]


def test_threshold_before_factors(batch_of, lookup):
    boxes = torch.tensor([[[0.0, 0.0, 9.0, 9.0], [20.0, 0.0, 29.0, 9.0]]])
    factors = torch.tensor([[0.1, 1.0]])
    found = NMSPostprocess(score_thr=0.5)(
        torch.tensor([[[0.9], [0.6]]]), lookup(boxes), batch_of(1), factors=factors
    )
    assert found.scores[0, :2].tolist() == pytest.approx([0.6, 0.09])


def test_small_boxes(batch_of, lookup):
    boxes = torch.tensor([[[0.0, 0.0, 9.0, 0.0], [20.0, 0.0, 24.0, 9.0], [40.0, 0.0, 45.0, 9.0]]])
    scores = torch.full((1, 3, 1), 0.5)
    counts = {
        size: int(NMSPostprocess(min_bbox_size=size)(scores, lookup(boxes), batch_of(1)).valid.sum())
        for size in (None, 0.0, 4.0, 10.0)
    }
    assert counts == {None: 3, 0.0: 2, 4.0: 1, 10.0: 0}


def test_boxes_per_class(batch_of):
    """As second stages have them: the decoder looks at the label."""

    def decode(prior, label):
        corner = torch.stack((label * 100.0, prior * 100.0), -1)
        return torch.cat((corner, corner + 10), -1)

    found = NMSPostprocess(class_agnostic=True)(torch.full((1, 2, 2), 0.5), decode, batch_of(1))
    assert found.boxes[0, :4, :2].tolist() == [[0, 0], [100, 0], [0, 100], [100, 100]]


def test_a_broken_box_is_dropped_alone(batch_of, lookup, scene):
    boxes, scores = scene(3, images=2)
    post = NMSPostprocess(**{**OPTIONS, "min_bbox_size": None})
    expected = post(scores, lookup(boxes), batch_of(2)).unpad()[1]
    boxes[0, 5] = float("nan")
    found = post(scores, lookup(boxes), batch_of(2)).unpad()
    assert found[0].boxes.isfinite().all()
    torch.testing.assert_close(found[1].boxes, expected.boxes)


def test_half_precision(batch_of, lookup, scene):
    boxes, scores = scene(4)
    found = NMSPostprocess(**OPTIONS)(scores.bfloat16(), lookup(boxes), batch_of(2))
    assert found.scores.dtype == torch.float32
    assert found.valid.any()


def test_no_gradient_is_kept(batch_of, lookup, scene):
    boxes, scores = scene(5)
    found = NMSPostprocess(**OPTIONS)(scores.requires_grad_(), lookup(boxes.requires_grad_()), batch_of(2))
    assert not found.scores.requires_grad
    assert not found.boxes.requires_grad


def test_levels_must_add_up(batch_of, lookup, scene):
    boxes, scores = scene()
    with pytest.raises(ConfigError, match=r"levels \[3\] add up to 3 priors, but there are scores for 40"):
        NMSPostprocess()(scores, lookup(boxes), batch_of(2), levels=(3,))


@pytest.mark.parametrize(
    ("name", "value"),
    [("score_thr", 1.5), ("nms_pre", -1), ("min_bbox_size", -1), ("iou_threshold", 2), ("max_per_img", -1)],
)
def test_parameters_are_checked(name, value):
    with pytest.raises(ConfigError, match=name):
        NMSPostprocess(**{name: value})


def test_component():
    points = importlib.metadata.distribution("detcore-plugin-postprocess").entry_points
    assert [p.name for p in points if p.group == "detcore.postprocess"] == ["NMSPostprocess"]
    assert registry.resolve("postprocess", "NMSPostprocess") is NMSPostprocess
    methods = [p.name for p in points if p.group == "detcore.suppressions"]
    assert methods == ["FastNMS", "MatrixNMS", "NMS", "SoftNMS"]
    for name in methods:
        assert registry.resolve("suppressions", name) is getattr(detcore_postprocess, name)
    assert pickle.loads(pickle.dumps(NMSPostprocess(max_per_img="7"))).max_per_img == 7
    for name in detcore_postprocess.__all__:
        assert getattr(detcore_postprocess, name).__name__ == name
    with pytest.raises(AttributeError, match="module 'detcore_postprocess' has no attribute 'HardNMS'"):
        detcore_postprocess.HardNMS


class Exported(nn.Module):
    """Post-processing as the end of an exported model."""

    def __init__(self, post):
        super().__init__()
        self.post = post

    def forward(self, scores, boxes, factors, valid):
        def decode(prior, label):
            return boxes.gather(1, prior[..., None].expand(-1, -1, 4))

        batch = ImageBatch.of(boxes.new_zeros(2, 3, 8, 8))
        found = self.post(scores, decode, batch, levels=(30, 10), factors=factors, valid=valid)
        return found.boxes, found.scores, found.labels, found.valid


@pytest.mark.filterwarnings("ignore:`create_unbacked_symint` is deprecated:FutureWarning")  # in torchvision
@pytest.mark.parametrize(
    "nms", [NMS, SoftNMS, *(pytest.param(cls, marks=pytest.mark.slow) for cls in (FastNMS, MatrixNMS))]
)
def test_export(scene, nms):
    inputs = [
        (scores, boxes, torch.rand(2, 40), torch.rand(2, 40) > 0.2)
        for boxes, scores in (scene(seed, images=2) for seed in range(4))
    ]
    inputs.append((torch.zeros_like(inputs[0][0]), *inputs[0][1:]))  # nothing is found
    module = Exported(NMSPostprocess(**{**OPTIONS, "max_per_img": 6}, nms=nms.spec()))
    program = torch.export.export(module, inputs[0]).module()
    for args in inputs:
        torch.testing.assert_close(program(*args), module(*args))
