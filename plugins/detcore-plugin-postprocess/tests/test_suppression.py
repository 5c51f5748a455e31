"""Non-maximum suppression in groups."""

import pytest
import torch
from detcore_postprocess import batched_nms, nms_mask, suppression
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import nms

from detcore.errors import ConfigError


@pytest.fixture(params=[1, 64, 10**6], ids=["alone", "some", "one-call"])
def call_size(request, monkeypatch):
    """However the groups are shared out among calls."""
    monkeypatch.setattr(suppression, "CALL_CPU", request.param)
    return request.param


@pytest.fixture(params=[False, True], ids=["eager", "compiling"])
def mode(request, monkeypatch):
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: request.param)
    return request.param


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    size=st.integers(0, 25),
    groups=st.integers(1, 4),
    threshold=st.sampled_from([0.0, 0.3, 0.5, 1.0]),
    calls=st.sampled_from([1, 8, 1000]),
    compiling=st.booleans(),
)
def test_equals_plain_loops(reference_nms, seed, size, groups, threshold, calls, compiling):
    generator = torch.Generator().manual_seed(seed)
    corners = (torch.rand(size, 2, generator=generator) * 80 - 40).round()
    boxes = torch.cat((corners, corners + (torch.rand(size, 2, generator=generator) * 30).round()), 1)
    scores = (torch.rand(size, generator=generator) * 8).round() / 8
    group = torch.randint(-1, groups, (size,), generator=generator)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(suppression, "CALL_CPU", calls)
        if size:
            patch.setattr(torch.compiler, "is_compiling", lambda: compiling)
        kept = batched_nms(boxes, scores, group, threshold)
    assert kept.tolist() == reference_nms(boxes, scores, group, threshold)


@pytest.fixture(scope="module")
def reference_nms():
    """One box at a time, with an IoU in exact integers over float64."""

    def overlap(a, b):
        w = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
        h = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
        union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - w * h
        return w * h / union if union else 0.0

    def run(boxes, scores, groups, threshold):
        rows, kept = boxes.tolist(), []
        for i in sorted(range(len(rows)), key=lambda i: (-scores[i].item(), i)):
            if all(groups[j] != groups[i] or overlap(rows[i], rows[j]) <= threshold for j in kept):
                kept.append(i)
        return kept

    return run


def test_equals_torchvision_group_by_group(call_size, mode):
    torch.manual_seed(0)
    corners = torch.rand(600, 2) * 1000
    boxes = torch.cat((corners, corners + torch.rand(600, 2) * 300), 1)
    scores, groups = torch.rand(600), torch.randint(0, 7, (600,))
    mask = nms_mask(boxes, scores, groups, 0.4)
    for group in range(7):
        rows = (groups == group).nonzero().squeeze(1)
        alone = rows[nms(boxes[rows], scores[rows], 0.4)]
        assert sorted(alone.tolist()) == rows[mask[rows]].tolist()


def test_many_groups_at_large_coordinates(call_size, mode):
    """Where offsets in float32 round: an overlap just above the threshold, in each of thousands of groups."""
    pair = torch.tensor([[100.3, 100.7, 200.1, 200.9], [100.3, 100.7, 200.1, 150.83]])
    iou = (150.83 - 100.7) / (200.9 - 100.7)
    boxes = pair.repeat(3000, 1)
    scores = torch.tensor([0.9, 0.8]).repeat(3000)
    groups = torch.arange(3000).repeat_interleave(2)
    if call_size == 1 or (mode and call_size == 64):
        boxes, scores, groups = boxes[:200], scores[:200], groups[:200]
    assert nms_mask(boxes, scores, groups, iou - 1e-5).tolist() == [True, False] * (len(boxes) // 2)
    assert nms_mask(boxes, scores, groups, iou + 1e-5).all()


def test_exactly_at_the_threshold_stays(call_size, mode):
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 5.0]]).repeat(50, 1) + 0.5
    groups = torch.arange(50).repeat_interleave(2)
    assert nms_mask(boxes, torch.ones(100), groups, 0.5).all()
    assert nms_mask(boxes, torch.ones(100), groups, 0.499).sum() == 50


def test_negative_coordinates(call_size, mode):
    boxes = torch.tensor([[-50.0, -50.0, -41.0, -41.0]] * 4)
    kept = nms_mask(boxes, torch.tensor([0.1, 0.2, 0.3, 0.4]), torch.tensor([0, 1, 1, 2]), 0.5)
    assert kept.tolist() == [True, False, True, True]


def test_of_equal_scores_the_first_stays(call_size, mode):
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0]] * 300)
    kept = nms_mask(boxes, torch.full((300,), 0.5), torch.zeros(300, dtype=torch.int64), 0.5)
    assert kept.nonzero().flatten().tolist() == [0]


def test_rows_that_take_no_part(call_size, mode):
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0]] * 4)
    boxes[2] = float("nan")
    scores = torch.tensor([0.9, 0.8, 0.95, float("nan")])
    groups = torch.zeros(4, dtype=torch.int64)
    assert nms_mask(boxes, scores, groups, 0.5).tolist() == [True, False, False, False]
    valid = torch.tensor([False, True, True, True])
    assert nms_mask(boxes, scores, groups, 0.5, valid).tolist() == [False, True, False, False]


def test_one_absurd_box_does_not_spoil_the_rest(call_size, mode):
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 9.0], [0.0, 0.0, 1e30, float("inf")]])
    kept = nms_mask(boxes, torch.tensor([0.9, 0.8, 0.7]), torch.tensor([5, 5, 9]), 0.85)
    assert kept.tolist() == [True, False, True]


def test_leading_dimensions_and_empty(mode):
    boxes, scores, groups = torch.rand(2, 3, 4), torch.rand(2, 3), torch.arange(6).reshape(2, 3)
    assert nms_mask(boxes, scores, groups, 0.5).tolist() == [[True] * 3] * 2


def test_empty():
    empty = torch.zeros(0, dtype=torch.int64)
    assert batched_nms(torch.zeros(0, 4), torch.zeros(0), empty, 0.5).shape == (0,)
    assert nms_mask(torch.zeros(2, 0, 4), torch.zeros(2, 0), torch.zeros(2, 0), 0.5).shape == (2, 0)
    no = torch.zeros(3, dtype=torch.bool)
    assert not nms_mask(torch.rand(3, 4), torch.rand(3), torch.zeros(3), 0.5, no).any()


def test_order_of_the_result():
    boxes = torch.tensor([[float(i), 0.0, i + 1.0, 1.0] for i in range(5)])
    scores = torch.tensor([0.2, 0.9, 0.2, 0.9, 0.5])
    assert batched_nms(boxes, scores, torch.zeros(5, dtype=torch.int64), 0.5).tolist() == [1, 3, 4, 0, 2]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions(dtype):
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 9.0]], dtype=dtype)
    kept = batched_nms(boxes, torch.tensor([0.5, 0.9], dtype=dtype), torch.zeros(2, dtype=torch.int64), 0.5)
    assert kept.tolist() == [1]


@pytest.mark.parametrize("threshold", [-0.1, 1.5, float("nan")])
def test_threshold_is_checked(threshold):
    with pytest.raises(ConfigError, match=r"iou_threshold should be within 0\.\.1, got"):
        nms_mask(torch.zeros(1, 4), torch.zeros(1), torch.zeros(1), threshold)
