"""The made-up data is what its names say, and reproducible."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from detcore.boxes import pairwise_overlap
from detcore.masks import Masks
from detcore.structures import Priors, Targets
from detcore.testing.data import (
    PRIOR_CASES,
    SIZE,
    TARGET_CASES,
    make_batch,
    make_priors,
    make_pyramid,
    make_targets,
    pad_targets,
)

RANDOM_TARGETS = sorted(set(TARGET_CASES) - {"none", "ties", "whole", "outside", "typical", "none_in_one"})


def assert_same(a, b):
    for field in dataclasses.fields(a):
        x, y = getattr(a, field.name), getattr(b, field.name)
        if isinstance(x, torch.Tensor):
            assert torch.equal(x, y)
        elif isinstance(x, Masks):
            assert_same(x, y)
        else:
            assert x == y


@pytest.mark.parametrize("case", TARGET_CASES)
def test_targets_are_well_formed_and_reproducible(case):
    targets = make_targets(case)
    assert isinstance(targets, Targets)
    assert len(targets) == 2
    assert targets.boxes.dtype == torch.float32
    boxes = targets.boxes[targets.valid]
    assert boxes.isfinite().all()
    assert (boxes[:, 2:] >= boxes[:, :2]).all()
    assert ((targets.labels >= 0) & (targets.labels < 3)).all()
    state = torch.random.get_rng_state()
    torch.rand(3)
    assert_same(make_targets(case), targets)
    torch.random.set_rng_state(state)
    assert_same(make_targets(case, seed=0), targets)


@pytest.mark.parametrize("case", TARGET_CASES)
def test_targets_leave_the_global_generator_alone(case):
    state = torch.random.get_rng_state()
    make_targets(case)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("case", RANDOM_TARGETS)
def test_another_seed_gives_other_numbers(case):
    assert not torch.equal(make_targets(case, seed=1).boxes, make_targets(case).boxes)


@pytest.mark.parametrize("case", sorted(set(TARGET_CASES) - {"outside"}))
@pytest.mark.parametrize("size", [(64, 64), SIZE, (300, 200)])
def test_boxes_lie_in_the_image(case, size):
    targets = make_targets(case, size=size)
    boxes = targets.boxes[targets.valid]
    assert (boxes >= 0).all()
    assert (boxes[..., 2] <= size[1]).all()
    assert (boxes[..., 3] <= size[0]).all()


@pytest.mark.parametrize(
    ("case", "counts"),
    [
        ("none", [0, 0, 0, 0]),
        ("one", [1, 1, 1, 1]),
        ("many", [50] * 4),
        ("thousands", [5000] * 4),
        ("mixed", [3, 0, 1, 7]),
        ("padded", [3, 0, 1, 7]),
    ],
)
def test_numbers_of_objects(case, counts):
    targets = make_targets(case, batch=4)
    assert targets.valid.sum(1).tolist() == counts


def test_ignored_objects():
    assert torch.equal((all_ignored := make_targets("all_ignored")).ignore, all_ignored.valid)
    assert not all_ignored.matchable.any()
    some = make_targets("some_ignored")
    assert (some.ignore.any(1) & some.matchable.any(1)).all()
    crowd = make_targets("crowd")
    assert crowd.ignore.tolist() == [[True, False, False, False]] * 2
    region, inner = crowd.boxes[:, :1], crowd.boxes[:, 1:]
    assert ((inner[..., :2] >= region[..., :2]) & (inner[..., 2:] <= region[..., 2:])).all()


def test_what_overlaps():
    crowded = make_targets("crowded").boxes
    assert pairwise_overlap(crowded, crowded).min() > 0.4
    duplicates = make_targets("duplicates")
    assert (pairwise_overlap(duplicates.boxes, duplicates.boxes) == 1).sum(2).min() == 3
    assert duplicates.labels[0, :6:2].unique().numel() == 3
    outside = make_targets("outside").boxes
    whole = make_targets("whole").boxes
    assert whole.tolist() == [[[0, 0, 160, 128]]] * 2
    assert (pairwise_overlap(outside, whole) > 0)[..., 0].tolist() == [[True, True, False]] * 2


def test_small_and_flat_objects():
    extents = (boxes := make_targets("degenerate").boxes)[..., 2:] - boxes[..., :2]
    assert (extents[0, :4] == 0).any(1).all()
    assert (extents[0, 4] > 0).all()
    tiny = (boxes := make_targets("tiny").boxes)[..., 2:] - boxes[..., :2]
    assert tiny.max() < 1.01
    assert tiny.min() > 0


@pytest.mark.parametrize("scale", [2.0, 4.0])
def test_ties_are_exact(scale):
    priors = make_priors("grid", strides=(8,), scale=scale)
    overlaps = pairwise_overlap(make_targets("ties").boxes[0], priors.boxes)
    assert (overlaps[0] == overlaps[0].max()).sum() == 4  # one object, four priors
    centre = (priors.centers == 44).all(1).nonzero().item()
    assert overlaps[1, centre] == overlaps[2, centre] > 0  # one prior, two objects


def test_masks_fill_their_boxes():
    targets = make_targets("mixed", masks=True, extra_rows=2)
    assert targets.masks.sizes.shape[:2] == targets.valid.shape
    boxes = targets.boxes
    area = (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
    fill = targets.masks.areas()[targets.valid] / area[targets.valid]
    assert ((fill > 0.6) & (fill < 0.95)).all()
    assert not targets.masks.areas()[~targets.valid].any()
    dense = targets.masks.dense()
    for image, row in targets.valid.nonzero().tolist():
        y, x = dense[image, row].nonzero().T + 0.5
        x1, y1, x2, y2 = boxes[image, row]
        assert x1 < x.min()
        assert x.max() < x2
        assert y1 < y.min()
        assert y.max() < y2


def test_flat_objects_have_empty_masks():
    assert make_targets("degenerate", masks=True).masks.areas()[:, :4].sum() == 0


def test_padding():
    plain, zeros = make_targets("mixed"), make_targets("mixed", extra_rows=3)
    assert zeros.valid.shape == (2, plain.valid.shape[1] + 3)
    assert not zeros.boxes[~zeros.valid].any()
    for padding in ("boxes", "nan"):
        padded = make_targets("mixed", extra_rows=3, padding=padding)
        assert torch.equal(padded.valid, zeros.valid)
        for name in ("boxes", "labels", "ignore"):
            kept = getattr(padded, name)[padded.valid]
            assert torch.equal(kept, getattr(plain, name)[plain.valid])
        garbage = padded.boxes[~padded.valid]
        assert garbage.isnan().all() if padding == "nan" else (garbage[:, 2:] > garbage[:, :2]).all()
        assert padded.ignore[~padded.valid].any()
    assert_same(make_targets("padded", extra_rows=0, padding="zeros"), plain)
    assert make_targets("padded").boxes[~make_targets("padded").valid].any()


def test_pad_targets_leaves_the_original():
    targets = make_targets("mixed", masks=True)
    before = targets.boxes.clone()
    padded = pad_targets(targets, 2, "boxes")
    assert torch.equal(targets.boxes, before)
    assert torch.equal(padded.masks.dense()[:, : targets.valid.shape[1]], targets.masks.dense())


def test_messages():
    with pytest.raises(ValueError, match="unknown case 'nothing'; known: none, one, many"):
        make_targets("nothing")
    with pytest.raises(ValueError, match="unknown case 'nothing'; known: grid, points"):
        make_priors("nothing")
    with pytest.raises(ValueError, match=r"size should be at least 64 x 64, got \(32, 100\)"):
        make_targets(size=(32, 100))


@pytest.mark.parametrize("case", PRIOR_CASES)
def test_priors_are_well_formed_and_reproducible(case):
    priors = make_priors(case)
    assert isinstance(priors, Priors)
    assert priors.strides.shape == (len(priors), 2)
    assert priors.boxes.isfinite().all()
    assert (priors.boxes[..., 2:] >= priors.boxes[..., :2]).all()
    if priors.levels:
        assert sum(level.count for level in priors.levels) == len(priors)
    assert_same(make_priors(case), priors)


def test_priors_of_a_grid():
    priors = make_priors("grid", size=(60, 90), strides=(8, 16))
    assert [(level.h, level.w, level.per_cell) for level in priors.levels] == [(8, 12, 1), (4, 6, 1)]
    assert priors.centers[:3].tolist() == [[4, 4], [12, 4], [20, 4]]
    assert priors.centers[12].tolist() == [4, 12]
    assert priors.centers[96].tolist() == [8, 8]
    assert priors.strides[[0, 95, 96]].tolist() == [[8, 8], [8, 8], [16, 16]]
    assert priors.boxes[0].tolist() == [-12, -12, 20, 20]


def test_the_other_priors():
    grid = make_priors("grid")
    points = make_priors("points")
    assert torch.equal(points.boxes[:, :2], points.boxes[:, 2:])
    assert torch.equal(points.centers, grid.centers)
    anchors = make_priors("anchors")
    assert len(anchors) == 3 * len(grid)
    assert torch.equal(anchors.boxes[::3], grid.boxes)
    invalid = make_priors("invalid")
    assert invalid.valid.shape == (2, len(grid))
    assert 0.4 < invalid.valid.float().mean() < 0.6
    assert not torch.equal(invalid.valid[0], invalid.valid[1])
    assert make_priors("proposals", batch=3).boxes.shape == (3, 60, 4)
    assert len(make_priors("none")) == 0
    assert len(make_priors("one")) == 1
    duplicates = make_priors("duplicates")
    assert torch.equal(duplicates.boxes[::2], duplicates.boxes[1::2])
    degenerate = make_priors("degenerate").boxes
    extents = degenerate[..., 2:] - degenerate[..., :2]
    assert (extents == 0).any(2).sum(1).tolist() == [20, 20]
    assert (extents == 0).all(2).sum(1).tolist() == [5, 5]


def test_pyramids():
    features, specs = make_pyramid(batch=3, size=(60, 90), channels=4, strides=(8, 32))
    assert [tuple(f.shape) for f in features] == [(3, 4, 8, 12), (3, 4, 2, 3)]
    assert [(s.channels, s.stride) for s in specs] == [(4, 8), (4, 32)]
    again, _ = make_pyramid(batch=3, size=(60, 90), channels=4, strides=(8, 32))
    other, _ = make_pyramid(batch=3, size=(60, 90), channels=4, strides=(8, 32), seed=1)
    assert all(torch.equal(a, b) for a, b in zip(features, again, strict=True))
    assert not torch.equal(features[0], other[0])


def test_batches():
    batch = make_batch(batch=3, uneven=True)
    assert batch.pixels.shape == (3, 3, *SIZE)
    assert batch.sizes.tolist() == [[128, 160], [104, 144], [80, 160]]
    for pixels, (h, w) in zip(batch.pixels, batch.sizes.tolist(), strict=True):
        assert pixels[:, :h, :w].all()
        assert not pixels[:, h:].any()
        assert not pixels[:, :, w:].any()
    assert torch.equal(make_batch(seed=0).pixels, make_batch().pixels)
    assert not torch.equal(make_batch(seed=1).pixels, make_batch().pixels)
