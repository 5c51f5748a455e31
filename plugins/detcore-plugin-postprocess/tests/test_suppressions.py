"""Suppression of every kind: by lanes, in fixed shapes, and in plain loops."""

import math
import pickle

import pytest
import torch
from detcore_postprocess import (
    NMS,
    FastNMS,
    MatrixNMS,
    NMSPostprocess,
    SoftNMS,
    keep_best,
    lanes,
    nms_match,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.ops import box_iou, nms

from detcore import build, dump
from detcore.errors import ConfigError

METHODS = [
    NMS(iou_threshold=0.4),
    NMS(iou_threshold=0.4, score_threshold=0.3, offset=1),
    SoftNMS(iou_threshold=0.4, min_score=0.05),
    SoftNMS(method="gaussian", sigma=0.3, min_score=0.2),
    SoftNMS(method="naive", iou_threshold=0.3),
    FastNMS(iou_threshold=0.4, top_k=None),
    FastNMS(iou_threshold=0.4, top_k=3),
    MatrixNMS(),
    MatrixNMS(kernel="linear", filter_thr=0.2),
]


@pytest.fixture(params=METHODS, ids=lambda method: repr(type(method).__name__) + str(METHODS.index(method)))
def method(request):
    return request.param


@pytest.fixture(params=["eager", "compiling", "portions"])
def mode(request, monkeypatch):
    """In lanes, in fixed shapes, and with as little as possible at once."""
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: request.param == "compiling")
    if request.param == "portions":
        monkeypatch.setattr(lanes, "PAIRS", 7)
    return request.param


def boxes_of(seed, images=2, count=30, groups=3):
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(images, count, 2, generator=generator) * 60 - 20
    sizes = torch.rand(images, count, 2, generator=generator) * 40 + 1
    scores = torch.rand(images, count, generator=generator)
    group = torch.randint(-1, groups - 1, (images, count), generator=generator)
    return torch.cat((corners, corners + sizes), -1), scores, group


def softened(method, boxes, scores, overlaps):
    """Soft-NMS of one group as the paper has it: {row: score}."""
    left, found = {i: s for i, s in enumerate(scores) if s >= method.min_score}, {}
    while left:
        best = max(left, key=lambda i: (left[i], -i))
        found[best] = left.pop(best)
        for i in list(left):
            iou = overlaps[best][i]
            if method.method == "gaussian":
                left[i] *= math.exp(-(iou**2) / method.sigma)
            elif iou >= method.iou_threshold:
                left[i] *= 1 - iou if method.method == "linear" else 0
            if left[i] < method.min_score:
                del left[i]
    return found


def fast(method, boxes, scores, overlaps):
    order = sorted(range(len(scores)), key=lambda i: (-scores[i], i))[: method.top_k]
    return {
        i: scores[i]
        for place, i in enumerate(order)
        if all(overlaps[i][j] <= method.iou_threshold for j in order[:place])
    }


def matrix(method, boxes, scores, overlaps):
    order, found = sorted(range(len(scores)), key=lambda i: (-scores[i], i)), {}

    def f(iou):
        return math.exp(-method.sigma * iou**2) if method.kernel == "gaussian" else 1 - iou

    for place, j in enumerate(order):
        ratios = [1.0]
        for at, i in enumerate(order[:place]):
            most = max((overlaps[i][k] for k in order[:at]), default=0.0)
            ratios += [f(overlaps[i][j]) / f(most)] if f(most) else []
        score = scores[j] * min(ratios)
        found |= {j: score} if score >= method.filter_thr else {}
    return found


def hard(method, boxes, scores, overlaps):
    rows = [i for i, s in enumerate(scores) if not method.score_threshold or s > method.score_threshold]
    moved = boxes[rows] + torch.tensor([0, 0, method.offset, method.offset])
    kept = nms(moved, torch.tensor([scores[i] for i in rows], dtype=boxes.dtype), method.iou_threshold)
    return {rows[i]: scores[rows[i]] for i in kept.tolist()}


PLAIN = {NMS: hard, SoftNMS: softened, FastNMS: fast, MatrixNMS: matrix}


def plain(method, boxes, scores, groups, valid=None):
    """{(image, row): score}."""
    found = {}
    for b in range(len(boxes)):
        for group in groups[b].unique():
            rows = groups[b] == group
            rows = (rows if valid is None else rows & valid[b]).nonzero()[:, 0]
            own = boxes[b, rows]
            overlaps = box_iou(own.double(), own.double()).tolist()
            left = PLAIN[type(method)](method, own, scores[b, rows].tolist(), overlaps)
            found |= {(b, int(rows[i])): score for i, score in left.items()}
    return found


def as_dict(left):
    rows = left.kept.nonzero().tolist()
    return {(b, i): float(left.scores[b, i]) for b, i in rows}


def test_equals_plain_loops(method, mode):
    for seed in range(6):
        boxes, scores, groups = boxes_of(seed)
        valid = (
            None
            if seed % 2
            else torch.rand(scores.shape, generator=torch.Generator().manual_seed(seed)) > 0.3
        )
        expected = plain(method, boxes, scores, groups, valid)
        assert as_dict(method(boxes, scores, groups, valid=valid)) == pytest.approx(expected, rel=1e-4)
        assert 0 < len(expected) <= scores.numel()


def test_batch_equals_singles(method, mode):
    boxes, scores, groups = boxes_of(3, images=4)
    boxes[3] = boxes[3] * 50 - 4000
    valid = torch.ones(scores.shape, dtype=torch.bool)
    valid[1, 5:] = False
    valid[2] = False
    together = method(boxes, scores, groups, valid=valid)
    for b in range(4):
        alone = method(*(x[b : b + 1] for x in (boxes, scores, groups)), valid=valid[b : b + 1])
        assert torch.equal(alone.kept[0], together.kept[b])
        assert torch.equal(alone.scores[0][alone.kept[0]], together.scores[b][together.kept[b]])


def test_the_order_of_rows_and_what_groups_are_called_is_no_matter(method, mode):
    boxes, scores, groups = boxes_of(4)
    order = torch.randperm(30, generator=torch.Generator().manual_seed(0))
    left = method(boxes, scores, groups)
    moved = method(boxes[:, order], scores[:, order], 1000 - 7 * groups[:, order])
    assert torch.equal(left.kept[:, order], moved.kept)
    torch.testing.assert_close(left.scores[:, order][moved.kept], moved.scores[moved.kept])


@pytest.mark.parametrize("shape", [(0, 5), (2, 0), (0, 0)])
def test_empty(method, mode, shape):
    left = method(torch.zeros(*shape, 4), torch.zeros(shape), torch.zeros(shape, dtype=torch.int64))
    assert left.kept.shape == left.scores.shape == shape


def test_all_invalid_and_broken(method, mode):
    boxes, scores, groups = boxes_of(5)
    assert not method(boxes, scores, groups, valid=torch.zeros(2, 30, dtype=torch.bool)).kept.any()
    expected = as_dict(method(boxes[:, 1:], scores[:, 1:], groups[:, 1:]))
    boxes[0, 0], scores[1, 0] = float("nan"), float("nan")
    left = method(boxes, scores, groups)
    assert as_dict(left) == pytest.approx({(b, i + 1): score for (b, i), score in expected.items()})


def test_ties_go_to_the_first(method, mode):
    """Equal boxes of equal scores: the first stays as it is, the others are dropped or weakened."""
    boxes = torch.tensor([[[0.0, 0.0, 10.0, 10.0]] * 2 + [[50.0, 50.0, 60.0, 60.0]]])
    left = method(boxes, torch.full((1, 3), 0.5), torch.zeros(1, 3, dtype=torch.int64))
    assert left.kept[0, [0, 2]].all()
    assert left.scores[0, [0, 2]].tolist() == [0.5, 0.5]
    assert not left.kept[0, 1] or left.scores[0, 1] < 0.5


def test_boxes_without_extent(method, mode):
    boxes = torch.tensor([[[5.0, 5.0, 5.0, 5.0], [5.0, 5.0, 5.0, 5.0], [0.0, 0.0, 10.0, 10.0]]])
    left = method(boxes, torch.tensor([[0.9, 0.8, 0.7]]), torch.zeros(1, 3, dtype=torch.int64))
    if getattr(method, "offset", 0):  # with which they are a pixel wide
        assert left.kept.tolist() == [[True, False, True]]
        return
    assert left.kept.all()
    assert left.scores[0].tolist() == pytest.approx([0.9, 0.8, 0.7])


def test_half_precision(method, mode):
    boxes, scores, groups = boxes_of(6)
    left = method(boxes.bfloat16(), scores.bfloat16(), groups)
    assert left.kept.any()
    assert left.scores[left.kept].isfinite().all()


def test_the_best_are_the_same_where_only_they_are_asked_for(method, mode):
    boxes, scores, groups = boxes_of(7, count=60)
    whole, some = method(boxes, scores, groups), method(boxes, scores, groups, most=4)
    for b in range(2):
        best = [left.scores[b].masked_fill(~left.kept[b], -1).topk(4) for left in (whole, some)]
        assert torch.equal(best[0].indices, best[1].indices)
        assert torch.equal(best[0].values, best[1].values)


def test_many_boxes_of_a_group_in_several_rounds(mode):
    """More picks than a round has, so that what is done is left out on the way."""
    boxes, scores, groups = boxes_of(8, images=1, count=150, groups=1)
    for method in (SoftNMS(method="gaussian"), SoftNMS(iou_threshold=0.1, min_score=0.1)):
        left = method(boxes.double(), scores.double(), groups)
        expected = plain(method, boxes.double(), scores.double(), groups)
        assert as_dict(left) == pytest.approx(expected)
        left = method(boxes.double(), scores.double(), groups, most=1000)
        assert as_dict(left) == pytest.approx(expected)
        assert len(expected) > 64


@pytest.mark.parametrize("most", [1, 2, 5, 9])
@pytest.mark.parametrize("first", [1, 3])
@pytest.mark.parametrize("nms", [NMS(iou_threshold=0.2), MatrixNMS(), MatrixNMS(filter_thr=0.3)])
def test_the_best_among_ties(nms, most, first, monkeypatch):
    """Of more and more boxes; images that have enough wait for the others."""
    monkeypatch.setattr(lanes, "FIRST", first)
    for seed in range(6):
        boxes, scores, groups = boxes_of(seed, images=4, count=40, groups=3)
        boxes, scores = (boxes / 10).round() * 10, (scores * 5).round() / 5
        boxes[1] = boxes[1, :1]
        valid = torch.arange(4)[:, None].expand(4, 40) != 2
        whole, some = (nms(boxes, scores, groups, valid=valid, most=count) for count in (None, most))
        slots = [keep_best(left.scores, left.kept, most) for left in (whole, some)]
        assert torch.equal(slots[0][0], slots[1][0])
        assert torch.equal(slots[0][1], slots[1][1])


@pytest.mark.parametrize("most", [1, 3, 7, 40, 100])
def test_the_best_of_soft_nms_among_ties(mode, most):
    """Coarse boxes and scores; exactly those that come first among equals."""
    for seed in range(4):
        boxes, scores, groups = boxes_of(seed, images=3, count=40, groups=4)
        boxes, scores = (boxes / 10).round() * 10, (scores * 5).round() / 5
        valid = torch.arange(3)[:, None] < 2
        whole, some = (
            SoftNMS(iou_threshold=0.3, min_score=0.1)(
                boxes, scores, groups, valid=valid.expand(3, 40), most=count
            )
            for count in (None, most)
        )
        slots = [keep_best(left.scores, left.kept, most) for left in (whole, some)]
        assert torch.equal(slots[0][0], slots[1][0])
        assert torch.equal(slots[0][1], slots[1][1])
        found = [left.scores.gather(1, slots[0][0])[slots[0][1]] for left in (whole, some)]
        assert torch.equal(*found)


def test_naive_soft_nms_is_nms():
    boxes, scores, groups = boxes_of(9)
    kept = SoftNMS(method="naive", iou_threshold=0.35, min_score=0.0)(boxes, scores, groups)
    soft = {row for row, score in as_dict(kept).items() if score > 0}
    assert soft == set(as_dict(NMS(iou_threshold=0.35)(boxes, scores, groups)))


def test_soft_nms_at_its_limits():
    boxes = torch.tensor([[[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 5.0], [0.0, 50.0, 10.0, 60.0]]])
    zeros = torch.zeros(1, 3, dtype=torch.int64)
    scores = torch.tensor([[0.8, 0.5, 0.25]])
    assert SoftNMS(iou_threshold=0.5)(boxes, scores, zeros).scores[0, 1] == 0.25  # at the threshold
    left = SoftNMS(iou_threshold=0.5, min_score=0.25)(boxes, scores, zeros)
    assert left.kept.all()  # what is exactly min_score stays
    left = SoftNMS(iou_threshold=0.5, min_score=0.3)(boxes, scores, zeros)
    assert left.kept.tolist() == [[True, False, False]]
    assert not SoftNMS(min_score=0.9)(boxes, scores, zeros).kept.any()


def test_fast_nms_lets_dropped_boxes_drop_others():
    boxes = torch.tensor([[[0.0, 0, 10, 10], [4.0, 0, 14, 10], [8.0, 0, 18, 10]]])
    scores, zeros = torch.tensor([[0.9, 0.8, 0.7]]), torch.zeros(1, 3, dtype=torch.int64)
    assert FastNMS(iou_threshold=0.4)(boxes, scores, zeros).kept.tolist() == [[True, False, False]]
    assert NMS(iou_threshold=0.4)(boxes, scores, zeros).kept.tolist() == [[True, False, True]]


# -------------------------------------------------------------------------------------------------- memory


class Largest(TorchDispatchMode):
    """Remembers the largest tensor that was made."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for value in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(value, torch.Tensor):
                self.elements = max(self.elements, value.numel())
        return result


SLOW = [pytest.param(cls(), marks=pytest.mark.slow, id=cls.__name__) for cls in (NMS, FastNMS, MatrixNMS)]


@pytest.mark.parametrize("method", [pytest.param(SoftNMS(), id="SoftNMS"), *SLOW])
def test_memory_of_very_many_priors_and_classes(method):
    """193,374 priors x 80 classes: nothing larger than the scores, and few of them are looked at."""
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(1, 193_374, 2, generator=generator) * 1000
    boxes = torch.cat((corners, corners + 50), -1)
    scores = torch.zeros(1, 193_374, 80)
    scores[0, ::3] = torch.rand(64_458, 80, generator=generator) ** 8

    def decode(prior, label):
        return boxes.gather(1, prior[..., None].expand(-1, -1, 4))

    post = NMSPostprocess(nms=method, nms_pre=1000)
    with Largest() as largest:
        found = post(scores, decode, None, levels=(145_200, 36_300, 9_150, 2_100, 624))
    assert found.valid.all()
    assert largest.elements <= 8 * scores.numel()  # as bytes or indices of the scores


@pytest.mark.parametrize(
    "method", [SoftNMS(), FastNMS(top_k=None), MatrixNMS()], ids=lambda m: type(m).__name__
)
def test_memory_of_one_large_group(method, monkeypatch):
    """Pairs of boxes are compared in portions, and small groups are not padded to the length of large ones."""
    monkeypatch.setattr(lanes, "PAIRS", 1 << 14)
    monkeypatch.setattr(lanes, "CELLS", 1 << 12)
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(1, 2000, 2, generator=generator) * 1000
    boxes = torch.cat((corners, corners + 50), -1)
    groups = torch.cat((torch.zeros(1000), torch.arange(1000))).long()[None]
    with Largest() as largest:
        method(boxes, torch.rand(1, 2000, generator=generator), groups, most=20)
    assert largest.elements <= 10 * (1 << 14)


# -------------------------------------------------------------------------------------------------- clusters


def test_clusters():
    boxes, scores, groups = boxes_of(10)
    valid = torch.rand(scores.shape, generator=torch.Generator().manual_seed(1)) > 0.2
    leader, takes_part = nms_match(boxes, scores, groups, 0.3, valid)
    assert torch.equal(takes_part, valid)
    kept = NMS(iou_threshold=0.3)(boxes, scores, groups, valid=valid).kept
    for b in range(2):
        order = scores[b].argsort(descending=True).tolist()
        for i in range(30):
            expected = i
            if valid[b, i] and not kept[b, i]:
                iou = box_iou(boxes[b], boxes[b, i : i + 1])[:, 0]
                expected = next(
                    j for j in order if kept[b, j] and groups[b, j] == groups[b, i] and iou[j] > 0.3
                )
            assert leader[b, i] == expected


def test_clusters_of_nothing():
    zeros = torch.zeros(2, 0, dtype=torch.int64)
    leader, valid = nms_match(torch.zeros(2, 0, 4), torch.zeros(2, 0), zeros, 0.5)
    assert leader.shape == valid.shape == (2, 0)


# --------------------------------------------------------------------------------------------- as components


def test_the_owner_supplies_the_threshold():
    assert NMSPostprocess(iou_threshold=0.7).nms.iou_threshold == 0.7
    assert NMSPostprocess(iou_threshold=0.7, nms=SoftNMS.spec()).nms.iou_threshold == 0.7
    assert (
        NMSPostprocess(iou_threshold=0.7, nms={"type": "FastNMS", "iou_threshold": 0.2}).nms.iou_threshold
        == 0.2
    )
    assert NMSPostprocess(iou_threshold=0.7, nms=NMS(iou_threshold=0.3)).nms.iou_threshold == 0.3
    assert NMSPostprocess(nms=MatrixNMS.spec()).nms.sigma == 2.0


def test_round_trip():
    post = NMSPostprocess(iou_threshold=0.6, nms=SoftNMS.spec(method="gaussian", sigma=0.3))
    config = dump(post)
    assert config["nms"]["type"] == "detcore-plugin-postprocess:SoftNMS"
    again = build(config, kind="postprocess")
    assert (again.nms.method, again.nms.sigma, again.nms.iou_threshold) == ("gaussian", 0.3, 0.6)
    assert dump(again) == config
    assert pickle.loads(pickle.dumps(again)).nms.sigma == 0.3
    del config["nms"]  # as files were before there was a choice
    assert isinstance(build(config, kind="postprocess").nms, NMS)


@pytest.mark.parametrize(
    ("cls", "name", "value"),
    [
        (NMS, "iou_threshold", 1.5),
        (NMS, "offset", 2),
        (SoftNMS, "method", "quadratic"),
        (SoftNMS, "sigma", 0),
        (SoftNMS, "min_score", -1),
        (FastNMS, "top_k", 0),
        (MatrixNMS, "kernel", "box"),
        (MatrixNMS, "filter_thr", 2),
    ],
)
def test_parameters_are_checked(cls, name, value):
    with pytest.raises(ConfigError, match=name):
        cls(**{name: value})
