"""Matrix NMS of masks."""

import pytest
import torch
from detcore_postprocess import MatrixNMS, mask_matrix_nms


def rectangles(boxes):
    """Masks [B, N, 40, 40] of whole-numbered boxes."""
    y, x = torch.meshgrid(torch.arange(40), torch.arange(40), indexing="ij")
    x1, y1, x2, y2 = boxes[..., None, None].unbind(2)
    return (x >= x1) & (x < x2) & (y >= y1) & (y < y2)


@pytest.fixture
def scene():
    generator = torch.Generator().manual_seed(0)
    corners = torch.randint(0, 20, (3, 12, 2), generator=generator)
    sizes = torch.randint(1, 20, (3, 12, 2), generator=generator)
    scores = torch.rand(3, 12, generator=generator)
    return (
        torch.cat((corners, corners + sizes), -1),
        scores,
        torch.randint(0, 2, (3, 12), generator=generator),
    )


@pytest.mark.parametrize("kernel", ["gaussian", "linear"])
def test_masks_of_boxes_are_weakened_as_the_boxes(scene, kernel):
    boxes, scores, labels = scene
    expected = MatrixNMS(kernel=kernel, filter_thr=0.3)(boxes.float(), scores, labels)
    left = mask_matrix_nms(rectangles(boxes), scores, labels, kernel=kernel, filter_thr=0.3)
    assert torch.equal(left.kept, expected.kept)
    torch.testing.assert_close(left.scores[left.kept], expected.scores[left.kept])


def test_batch_equals_singles_and_padding_counts_for_nothing(scene):
    boxes, scores, labels = scene
    masks = rectangles(boxes)
    valid = torch.ones(3, 12, dtype=torch.bool)
    valid[1, 4:] = False
    valid[2] = False
    together = mask_matrix_nms(masks, scores, labels, valid=valid)
    assert not together.kept[2].any()
    assert torch.equal(together.kept, valid)
    few = mask_matrix_nms(masks[1:2, :4], scores[1:2, :4], labels[1:2, :4])
    torch.testing.assert_close(together.scores[1, :4], few.scores[0])


def test_only_the_best_take_part(scene):
    boxes, scores, labels = scene
    left = mask_matrix_nms(rectangles(boxes), scores, labels, nms_pre=5)
    assert left.kept.sum(1).tolist() == [5, 5, 5]
    assert torch.equal(
        left.kept.nonzero(), torch.zeros(3, 12).scatter(1, scores.topk(5).indices, 1).nonzero()
    )


def test_equal_masks():
    """The first of equal scores stays; with the linear kernel the others vanish, however many there are."""
    masks = torch.ones(1, 4, 3, 3, dtype=torch.bool)
    left = mask_matrix_nms(
        masks, torch.full((1, 4), 0.5), torch.zeros(1, 4, dtype=torch.int64), kernel="linear"
    )
    assert left.scores.tolist() == [[0.5, 0, 0, 0]]


def test_nothing_and_empty_masks():
    none = mask_matrix_nms(torch.zeros(2, 0, 3, 3), torch.zeros(2, 0), torch.zeros(2, 0, dtype=torch.int64))
    assert none.kept.shape == (2, 0)
    empty = mask_matrix_nms(
        torch.zeros(1, 2, 3, 3, dtype=torch.bool),
        torch.tensor([[0.5, 0.6]]),
        torch.zeros(1, 2, dtype=torch.int64),
    )
    assert empty.scores[0].tolist() == pytest.approx([0.5, 0.6])


def test_given_areas(scene):
    boxes, scores, labels = scene
    masks = rectangles(boxes)
    own = mask_matrix_nms(masks, scores, labels, areas=masks.flatten(2).sum(-1))
    torch.testing.assert_close(own.scores, mask_matrix_nms(masks, scores, labels).scores)
    larger = mask_matrix_nms(masks, scores, labels, areas=masks.flatten(2).sum(-1) * 2)
    assert (larger.scores >= own.scores).all()
