"""Box geometry."""

import pytest
import torch

from detcore.boxes import aligned_intersection, aligned_overlap, area, clip, contains, pairwise_overlap

BOX = torch.tensor([10.0, 20.0, 30.0, 60.0])


def boxes(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(*shape, 2, generator=generator) * 80
    return torch.cat((corners, corners + torch.rand(*shape, 2, generator=generator) * 60), dim=-1)


def test_area_counts_no_extra_pixel():
    assert area(BOX) == 20 * 40
    assert area(torch.zeros(0, 4)).shape == (0,)


def test_overlap_by_hand():
    other = torch.tensor([20.0, 20.0, 40.0, 60.0])  # the right half of BOX and as much again
    assert aligned_intersection(BOX, other) == 400
    assert aligned_overlap(BOX, other) == pytest.approx(400 / 1200)
    assert aligned_overlap(BOX, other, "iof") == pytest.approx(0.5)
    assert aligned_overlap(BOX, torch.tensor([0.0, 0.0, 100.0, 100.0]), "iof") == 1


@pytest.mark.parametrize("mode", ["iou", "iof"])
@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
def test_pairwise_is_aligned_of_all_pairs(mode, shape):
    a, b = boxes(*shape, 5), boxes(*shape, 4, seed=1)
    overlap = pairwise_overlap(a, b, mode)
    assert overlap.shape == (*shape, 5, 4)
    for n in range(5):
        for m in range(4):
            assert torch.equal(overlap[..., n, m], aligned_overlap(a[..., n, :], b[..., m, :], mode))


def test_batch_equals_singles_and_broadcasts():
    a, b = boxes(2, 5), boxes(4, seed=1)
    for i in range(2):
        assert torch.equal(pairwise_overlap(a, b)[i], pairwise_overlap(a[i], b))


@pytest.mark.parametrize("mode", ["iou", "iof"])
def test_degenerate_boxes_overlap_by_zero_and_have_finite_gradients(mode):
    point = torch.tensor([[5.0, 5.0, 5.0, 5.0]])
    for a, b in ((point, point), (BOX[None], point), (point, BOX[None])):
        a = a.clone().requires_grad_()
        overlap = pairwise_overlap(a, b, mode)
        assert overlap.item() == 0
        overlap.sum().backward()
        assert a.grad.isfinite().all()


def test_eps_is_the_smallest_divisor():
    tiny = torch.tensor([0.0, 0.0, 0.01, 0.01])
    assert aligned_overlap(tiny, tiny, eps=1.0) == pytest.approx(1e-4)
    assert aligned_overlap(BOX, BOX, eps=1.0) == 1


@pytest.mark.parametrize(("n", "m"), [(0, 3), (3, 0), (0, 0)])
def test_no_boxes(n, m):
    assert pairwise_overlap(boxes(2, n), boxes(2, m)).shape == (2, n, m)


def test_touching_and_distant_boxes_do_not_overlap():
    others = torch.tensor([[30.0, 20.0, 50.0, 60.0], [90.0, 90.0, 95.0, 95.0]])
    assert torch.equal(pairwise_overlap(BOX[None], others), torch.zeros(1, 2))


def test_clip_to_one_size_and_to_a_size_per_image():
    far = torch.tensor([-5.0, -6.0, 700.0, 800.0])
    assert clip(far, torch.tensor([40, 50])).tolist() == [0, 0, 50, 40]
    many = far.expand(2, 3, 4)
    clipped = clip(many, torch.tensor([[40, 50], [400, 500]]))
    assert clipped[0].tolist() == [[0, 0, 50, 40]] * 3
    assert clipped[1].tolist() == [[0, 0, 500, 400]] * 3
    assert many[0, 0, 0] == -5


def test_clip_moves_a_box_outside_onto_the_edge():
    assert clip(torch.tensor([60.0, 60.0, 70.0, 70.0]), torch.tensor([40, 50])).tolist() == [50, 40, 50, 40]


def test_contains_is_strict():
    points = torch.tensor([[20.0, 40.0], [10.0, 40.0], [30.0, 60.0], [9.0, 40.0]])
    assert contains(BOX[None], points)[:, 0].tolist() == [True, False, False, False]
    assert contains(boxes(2, 3), torch.rand(2, 7, 2)).shape == (2, 7, 3)
