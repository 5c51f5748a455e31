"""Masks against the same computations on dense images."""

from __future__ import annotations

import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F
from torchvision.ops import roi_align

import detcore.masks
from detcore.errors import DataError
from detcore.masks import Masks


def blob(generator, n, h, w):
    """n random masks of which some are empty, some one pixel, some the whole image."""
    masks = torch.rand(n, h, w, generator=generator) < 0.3
    for i in range(n):
        kind = int(torch.randint(0, 5, (), generator=generator))
        if kind == 0:
            masks[i] = False
        elif kind == 1:
            masks[i] = True
        elif kind == 2:
            masks[i] = False
            masks[
                i,
                int(torch.randint(h, (), generator=generator)),
                int(torch.randint(w, (), generator=generator)),
            ] = True
        elif kind == 3:
            y, x = (
                int(torch.randint(h, (), generator=generator)),
                int(torch.randint(w, (), generator=generator)),
            )
            masks[i, :y] = False
            masks[i, :, :x] = False
    return masks


def batch(seed, counts=(3, 0, 2), shapes=((20, 31), (17, 40), (25, 8)), rows=4):
    """A batch, and the same as a dense float [B, M, H, W] padded at the right and bottom."""
    generator = torch.Generator().manual_seed(seed)
    images = [blob(generator, n, *shape) for n, shape in zip(counts, shapes, strict=True)]
    height, width = max(h for h, _ in shapes), max(w for _, w in shapes)
    dense = torch.zeros(len(counts), rows, height, width)
    for i, masks in enumerate(images):
        dense[i, : len(masks), : masks.shape[1], : masks.shape[2]] = masks.float()
    return Masks.stack(images, rows), dense


def random_boxes(generator, b, p, height, width):
    corners = torch.rand(b, p, 2, 2, generator=generator) * torch.tensor([width * 1.4, height * 1.4])
    corners = corners - torch.tensor([width * 0.2, height * 0.2])
    return torch.cat((corners.amin(2), corners.amax(2)), -1)


def roi_align_on(dense, boxes, gt_index, size):
    b, p = gt_index.shape
    index = (torch.arange(b)[:, None] * dense.shape[1] + gt_index).flatten()
    planes = dense.flatten(0, 1)[:, None].to(boxes.dtype)
    rois = torch.cat((index[:, None].to(boxes.dtype), boxes.flatten(0, 1)), 1)
    return roi_align(planes, rois, size, 1.0, 0, True)[:, 0].reshape(
        b, p, *((size, size) if isinstance(size, int) else size)
    )


def grid_sample_on(dense, points, gt_index):
    b, p = gt_index.shape
    planes = dense[torch.arange(b)[:, None], gt_index].flatten(0, 1)[:, None].to(points.dtype)
    size = torch.tensor([dense.shape[-1], dense.shape[-2]], dtype=points.dtype)
    grid = 2 * points.flatten(0, 1)[:, None] / size - 1
    return F.grid_sample(planes, grid, align_corners=False)[:, 0, 0].reshape(b, p, -1)


seeds = st.integers(0, 10_000)


# ------------------------------------------------------------------------------ stack, dense


@given(seeds)
@settings(max_examples=25, deadline=None)
def test_stack_is_lossless(seed):
    masks, dense = batch(seed)
    assert masks.dense().dtype == torch.bool
    assert torch.equal(masks.dense().float(), dense)
    assert torch.equal(masks.areas(), dense.sum((2, 3)).long())


def test_stack_stores_only_the_extent():
    image = torch.zeros(1, 400, 600, dtype=torch.bool)
    image[0, 100:110, 200:230] = True
    masks = Masks.stack([image], 1)
    assert masks.values.numel() == 10 * 30
    assert masks.values.dtype == torch.uint8
    assert masks.sizes.tolist() == [[[10, 30]]]
    assert masks.origins.tolist() == [[[200, 100]]]
    assert masks.image_size == (400, 600)


def test_stack_takes_integer_masks_as_true_where_not_zero():
    image = torch.tensor([[[0, 2], [255, 0]]], dtype=torch.uint8)
    assert Masks.stack([image], 1).dense().tolist() == [[[[False, True], [True, False]]]]


def test_stack_does_not_keep_the_callers_memory():
    image = torch.ones(1, 4, 4, dtype=torch.bool)
    masks = Masks.stack([image], 1)
    image.zero_()
    assert masks.areas().tolist() == [[16]]


@pytest.mark.parametrize(
    "images", [[], [torch.zeros(0, 5, 7, dtype=torch.bool)], [torch.zeros(2, 5, 7, dtype=torch.bool)]]
)
def test_nothing_to_store(images):
    masks = Masks.stack(images, 3)
    b = len(images)
    height, width = masks.image_size
    assert masks.areas().tolist() == [[0, 0, 0]] * b
    assert masks.dense().shape == (b, 3, height, width)
    assert not masks.dense().any()
    index = torch.zeros(b, 6, dtype=torch.int64)
    assert masks.crop(torch.tensor([0.0, 0, 5, 5]).expand(b, 6, 4), index, 4).abs().sum() == 0
    assert masks.crop(torch.zeros(b, 6, 4), index, 4).shape == (b, 6, 4, 4)
    assert masks.sample(torch.full((b, 6, 2, 2), 2.0), index).shape == (b, 6, 2)


def test_images_without_pixels():
    masks = Masks.stack([torch.zeros(1, 0, 0, dtype=torch.bool)], 1)
    assert masks.areas().tolist() == [[0]]
    assert masks.dense(2).shape == (1, 1, 0, 0)


def test_no_pairs():
    masks, _ = batch(0)
    index = torch.zeros(3, 0, dtype=torch.int64)
    assert masks.crop(torch.zeros(3, 0, 4), index, (3, 5)).shape == (3, 0, 3, 5)
    assert masks.sample(torch.zeros(3, 0, 7, 2), index).shape == (3, 0, 7)
    assert masks.sample(torch.zeros(3, 2, 0, 2), torch.zeros(3, 2, dtype=torch.int64)).shape == (3, 2, 0)


def test_stack_refuses_the_wrong_shape():
    with pytest.raises(DataError, match=r"targets\[1\]: masks should have shape \[n, h, w\], got \[4, 4\]"):
        Masks.stack([torch.zeros(1, 4, 4, dtype=torch.bool), torch.zeros(4, 4, dtype=torch.bool)], 1)
    with pytest.raises(DataError, match=r"targets\[0\]: 3 masks do not fit into 2 rows"):
        Masks.stack([torch.zeros(3, 4, 4, dtype=torch.bool)], 2)


@given(seeds, st.integers(1, 9))
@settings(max_examples=25, deadline=None)
def test_dense_takes_the_pixel_at_the_centre_of_each_cell(seed, stride):
    masks, dense = batch(seed)
    got = masks.dense(stride)
    height, width = dense.shape[-2:]
    assert got.shape == (3, 4, -(-height // stride), -(-width // stride))
    padded = F.pad(dense, (0, stride, 0, stride))
    start = stride // 2
    expected = padded[:, :, start::stride, start::stride][:, :, : got.shape[2], : got.shape[3]]
    assert torch.equal(got.float(), expected)


@pytest.mark.parametrize("stride", [0, -2])
def test_dense_refuses_a_stride_that_is_not_positive(stride):
    with pytest.raises(ValueError, match=f"stride should be a positive integer, got {stride}"):
        batch(0)[0].dense(stride)


def test_dense_in_chunks_is_the_same(monkeypatch):
    masks, dense = batch(5)
    monkeypatch.setattr(detcore.masks, "CHUNK", 1)
    assert torch.equal(masks.dense().float(), dense)


def test_pad_to():
    masks, dense = batch(3)
    height, width = masks.image_size
    wider = masks.pad_to((height + 7, width + 3))
    assert torch.equal(wider.dense().float(), F.pad(dense, (0, 3, 0, 7)))
    assert masks.image_size == (height, width)
    with pytest.raises(
        ValueError, match=r"size should be at least \(25, 40\), that of the images, got \(25, 39\)"
    ):
        masks.pad_to((25, 39))


def test_to_and_pickle():
    masks, dense = batch(2)
    for copy in (masks.to("cpu"), pickle.loads(pickle.dumps(masks))):
        assert torch.equal(copy.dense().float(), dense)
    assert masks.to("meta").values.device.type == "meta"


# -------------------------------------------------------------------------------------- crop


@given(seeds, st.sampled_from([1, 7, (3, 5), (14, 14), 28]))
@settings(max_examples=40, deadline=None)
def test_crop_is_roi_align_on_the_dense_masks(seed, size):
    masks, dense = batch(seed)
    generator = torch.Generator().manual_seed(seed + 1)
    boxes = random_boxes(generator, 3, 9, *dense.shape[-2:])
    gt_index = torch.randint(0, 4, (3, 9), generator=generator)
    expected = roi_align_on(dense, boxes, gt_index, size)
    got = masks.crop(boxes, gt_index, size)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, expected, rtol=0, atol=2e-6)
    exact = masks.crop(boxes.double(), gt_index, size)
    torch.testing.assert_close(exact, roi_align_on(dense, boxes.double(), gt_index, size), rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", [(120, 180), (333, 500)])
def test_crop_of_large_boxes(shape):
    generator = torch.Generator().manual_seed(7)
    y, x = torch.meshgrid(torch.arange(shape[0]), torch.arange(shape[1]), indexing="ij")
    disc = ((y - 60.3) ** 2 + (x - 90.1) ** 2 < 55**2)[None]
    images = [torch.cat((disc, blob(generator, 3, *shape)))]
    masks, dense = Masks.stack(images, 4), images[0][None].float()
    boxes = random_boxes(generator, 1, 30, *shape)
    gt_index = torch.randint(0, 4, (1, 30), generator=generator)
    torch.testing.assert_close(
        masks.crop(boxes, gt_index, 28), roi_align_on(dense, boxes, gt_index, 28), rtol=0, atol=1e-6
    )


def test_crop_at_the_borders_of_the_image():
    masks, dense = batch(11, (1, 1, 1), ((20, 20), (20, 20), (20, 20)), 1)
    masks = Masks.stack([torch.ones(1, 20, 20, dtype=torch.bool)] * 3, 1)
    dense = torch.ones_like(dense)
    boxes = torch.tensor(
        [
            [[-4.0, -4, 10, 10], [0, 0, 20, 20]],
            [[12, 12, 25, 25], [19.5, 19.5, 20.5, 20.5]],
            [[-0.4, 3, 0.4, 4], [20, 20, 22, 22]],
        ]
    )
    index = torch.zeros(3, 2, dtype=torch.int64)
    torch.testing.assert_close(
        masks.crop(boxes, index, 7), roi_align_on(dense, boxes, index, 7), rtol=0, atol=1e-6
    )


def test_crop_of_its_own_box_is_full():
    image = torch.zeros(1, 50, 50, dtype=torch.bool)
    image[0, 10:30, 15:45] = True
    got = Masks.stack([image], 1).crop(
        torch.tensor([[[15.0, 10, 45, 30]]]), torch.zeros(1, 1, dtype=torch.int64), 4
    )
    assert (got > 0.9).all()


def test_crop_of_degenerate_boxes():
    masks = Masks.stack([torch.ones(1, 10, 10, dtype=torch.bool)], 1)
    inf, nan = float("inf"), float("nan")
    boxes = torch.tensor(
        [
            [3.0, 3, 3, 8],
            [3, 3, 3, 3],
            [8, 8, 2, 2],
            [nan, 0, 5, 5],
            [0, 0, inf, 5],
            [-inf, -inf, inf, inf],
            [50, 50, 60, 60],
        ]
    )[None]
    got = masks.crop(boxes, torch.zeros(1, 7, dtype=torch.int64), 3)
    assert not got.any()


def test_crop_of_a_box_far_larger_than_the_image_is_bounded():
    masks = Masks.stack([torch.ones(1, 10, 10, dtype=torch.bool)], 1)
    got = masks.crop(torch.tensor([[[-1e9, -1e9, 1e9, 1e9]]]), torch.zeros(1, 1, dtype=torch.int64), 5)
    assert got.isfinite().all()
    assert got.max() <= 1


def test_crop_in_chunks_is_the_same(monkeypatch):
    masks, dense = batch(5)
    generator = torch.Generator().manual_seed(0)
    boxes = random_boxes(generator, 3, 20, *dense.shape[-2:])
    gt_index = torch.randint(0, 4, (3, 20), generator=generator)
    whole = masks.crop(boxes, gt_index, 7)
    for chunk in (1, 2000, 10_000):
        monkeypatch.setattr(detcore.masks, "CHUNK", chunk)
        torch.testing.assert_close(masks.crop(boxes, gt_index, 7), whole, rtol=0, atol=1e-6)


def test_crop_and_sample_of_pairs_gathered_from_several_images():
    masks, dense = batch(8)
    generator = torch.Generator().manual_seed(1)
    boxes = random_boxes(generator, 3, 6, *dense.shape[-2:])
    gt_index = torch.randint(0, 4, (3, 6), generator=generator)
    points = torch.rand(3, 6, 5, 2, generator=generator) * 40
    image = torch.tensor([2, 0, 0, 1, 2])
    place = torch.tensor([1, 5, 0, 3, 4])
    gathered = (boxes[image, place], gt_index[image, place], 7, image)
    assert torch.equal(masks.crop(*gathered), masks.crop(boxes, gt_index, 7)[image, place])
    sampled = masks.sample(points[image, place], gt_index[image, place], image)
    assert torch.equal(sampled, masks.sample(points, gt_index)[image, place])


def test_batch_equals_singles():
    generator = torch.Generator().manual_seed(4)
    images = [blob(generator, n, 20, 30) for n in (3, 0, 5)]
    together = Masks.stack(images, 5)
    boxes = random_boxes(generator, 3, 8, 20, 30)
    points = torch.rand(3, 8, 6, 2, generator=generator) * 30
    gt_index = torch.randint(0, 3, (3, 8), generator=generator)
    for i, image in enumerate(images):
        alone = Masks.stack([image], 5)
        one = slice(i, i + 1)
        torch.testing.assert_close(
            alone.crop(boxes[one], gt_index[one], 7),
            together.crop(boxes, gt_index, 7)[one],
            rtol=0,
            atol=1e-6,
        )
        assert torch.equal(alone.sample(points[one], gt_index[one]), together.sample(points, gt_index)[one])
        assert torch.equal(alone.areas(), together.areas()[one])


def test_crop_keeps_float32_under_autocast():
    masks, dense = batch(9)
    boxes = random_boxes(torch.Generator().manual_seed(3), 3, 5, *dense.shape[-2:])
    index = torch.zeros(3, 5, dtype=torch.int64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = masks.crop(boxes, index, 7)
    assert got.dtype == torch.float32
    assert torch.equal(got, masks.crop(boxes, index, 7))


# ------------------------------------------------------------------------------------ sample


@given(seeds)
@settings(max_examples=30, deadline=None)
def test_sample_is_grid_sample_on_the_dense_masks(seed):
    masks, dense = batch(seed)
    generator = torch.Generator().manual_seed(seed + 1)
    height, width = dense.shape[-2:]
    points = (
        torch.rand(3, 7, 11, 2, generator=generator, dtype=torch.float64)
        * torch.tensor([width + 6, height + 6])
        - 3
    )
    gt_index = torch.randint(0, 4, (3, 7), generator=generator)
    expected = grid_sample_on(dense, points, gt_index)
    torch.testing.assert_close(masks.sample(points, gt_index), expected, rtol=0, atol=1e-9)
    single = masks.sample(points.float(), gt_index)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single, expected.float(), rtol=0, atol=2e-5)


def test_sample_at_the_centres_is_the_pixels_own_value():
    masks, dense = batch(6)
    height, width = dense.shape[-2:]
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    points = torch.stack((x, y), -1).flatten(0, 1) + 0.5
    gt_index = torch.arange(4).expand(3, 4)
    got = masks.sample(points.expand(3, 4, -1, 2), gt_index)
    assert torch.equal(got.reshape(3, 4, height, width), dense)


def test_sample_between_and_outside():
    image = torch.zeros(1, 4, 4, dtype=torch.bool)
    image[0, 1, 1] = True
    masks = Masks.stack([image], 1)
    far = 1e30
    points = torch.tensor(
        [[1.5, 1.5], [2.0, 1.5], [2.0, 2.0], [0.5, 1.5], [far, far], [-far, 0], [float("nan"), 1.5]]
    )
    got = masks.sample(points[None, None], torch.zeros(1, 1, dtype=torch.int64))
    assert got.flatten().tolist() == [1.0, 0.5, 0.25, 0.0, 0.0, 0.0, 0.0]


def test_sample_carries_the_gradient_of_the_points():
    masks, dense = batch(6)
    generator = torch.Generator().manual_seed(2)
    points = (torch.rand(3, 4, 5, 2, generator=generator, dtype=torch.float64) * 20).requires_grad_()
    gt_index = torch.arange(4).expand(3, 4)
    (own,) = torch.autograd.grad(masks.sample(points, gt_index).sum(), points)
    (expected,) = torch.autograd.grad(grid_sample_on(dense, points, gt_index).sum(), points)
    torch.testing.assert_close(own, expected)


def test_padded_rows_are_empty():
    masks, _ = batch(1)
    index = torch.full((3, 2), 3)  # row 3 is padding in every image
    assert not masks.crop(torch.tensor([0.0, 0, 20, 20]).expand(3, 2, 4), index, 5).any()
    assert not masks.sample(torch.full((3, 2, 4, 2), 5.0), index).any()
    assert masks.areas()[:, 3].tolist() == [0, 0, 0]
