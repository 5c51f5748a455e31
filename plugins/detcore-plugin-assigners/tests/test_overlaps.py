"""The searches: whatever they skip, they answer alike."""

import pytest
import torch
from detcore_assigners import overlaps
from detcore_assigners.overlaps import BoxOverlaps, DenseSearch
from detcore_assigners.tiles import TileSearch

from detcore.boxes import pairwise_overlap
from detcore.structures import PriorLevel

GRIDS = {
    "pyramid": ((23, 31, 3, 8), (12, 16, 3, 16), (6, 8, 3, 32)),
    "large": ((90, 120, 1, 8),),
    "one_per_cell": ((40, 25, 1, 8),),
    "many_per_cell": ((3, 2, 300, 32),),
    "mixed": ((17, 1, 9, 8), (1, 17, 1, 8)),
    "empty_level": ((0, 0, 3, 8), (5, 5, 2, 8)),
    "nothing": ((0, 4, 3, 8),),
    "no_levels": (),
}
LAYOUTS = ("grid", "anywhere", "nowhere")


def levels_of(name):
    return tuple(PriorLevel(h, w, a, (float(s), float(s))) for h, w, a, s in GRIDS[name])


def random_boxes(*shape, low, high, generator):
    corners = torch.randint(-30, 200, (*shape, 2), generator=generator).float()
    return torch.cat((corners, corners + torch.randint(low, high, (*shape, 2), generator=generator)), dim=-1)


def priors_of(name, layout, images=3):
    """On the grid that the levels describe, at random places, or without any area."""
    generator = torch.Generator().manual_seed(0)
    count = sum(level.count for level in levels_of(name))
    boxes = random_boxes(images, count, low=4, high=60, generator=generator)
    if layout == "grid":
        centers = [torch.zeros(0, 2)]
        for h, w, a, s in GRIDS[name]:
            y, x = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
            centers.append(
                (torch.stack((x, y), -1).reshape(-1, 1, 2) * float(s)).expand(-1, a, 2).reshape(-1, 2)
            )
        half = (boxes[..., 2:] - boxes[..., :2]) / 2
        boxes = torch.cat((torch.cat(centers) - half, torch.cat(centers) + half), dim=-1)
    if layout == "nowhere":
        return torch.zeros_like(boxes)
    return boxes


def part_of(boxes):
    """Nine of ten priors take part; of the first image all."""
    part = torch.rand(boxes.shape[:2], generator=torch.Generator().manual_seed(2)) > 0.1
    part[0] = True
    return part


def rows_of(layout, images=3):
    rows = random_boxes(images, 12, low=0, high=120, generator=torch.Generator().manual_seed(1))
    rows[0, 3] = rows[0, 5]
    rows[1, 6:] = 0
    rows[2, 1] = torch.tensor([-500.0, -500.0, 900.0, 900.0])
    return rows


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("chunk", [2**20, 1500])
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("all_take_part", [True, False])
def test_tiles_answer_as_all_pairs(name, layout, chunk, shared, all_take_part, monkeypatch):
    rows, boxes = rows_of(layout), priors_of(name, layout)
    part = None if all_take_part else part_of(boxes)
    boxes = boxes[0] if shared else boxes
    dense = DenseSearch.of_boxes(rows, boxes, part)
    expected = dense.best()
    monkeypatch.setattr(overlaps, "CHUNK", chunk)
    tiles = TileSearch(rows, boxes, levels_of(name), part)
    for found, value in zip(tiles.best(), expected, strict=True):
        assert torch.equal(found, value)
    touching = expected.row_iou > 0
    assert touching.any() == (boxes.numel() > 0 and layout != "nowhere")
    last = tiles.last_attaining(expected.row_iou, touching)
    assert torch.equal(last, dense.last_attaining(expected.row_iou, touching))
    first = tiles.first_priors(expected.row_iou)
    assert torch.equal(first[touching], dense.first_priors(expected.row_iou)[touching])


def test_dense_search_by_definition():
    rows, boxes = rows_of("grid"), priors_of("pyramid", "grid")
    part = part_of(boxes)
    iou = pairwise_overlap(rows, boxes) * part[:, None]
    dense = DenseSearch.of_boxes(rows, boxes, part)
    best = dense.best()
    assert torch.equal(best.prior_iou, iou.amax(1))
    assert torch.equal(best.prior_row, iou.argmax(1))
    assert torch.equal(best.row_iou, iou.amax(2))
    assert torch.equal(dense.first_priors(best.row_iou), iou.argmax(2))
    attained = iou == best.row_iou[..., None]
    last = torch.where(attained.any(1), 11 - attained.flip(1).int().argmax(1), -1)
    assert torch.equal(dense.last_attaining(best.row_iou, torch.ones(3, 12, dtype=torch.bool)), last)


def test_most_pairs_of_a_grid_are_never_looked_at():
    boxes = priors_of("large", "grid")
    rows = random_boxes(3, 50, low=2, high=20, generator=torch.Generator().manual_seed(1))
    tiles = TileSearch(rows, boxes, levels_of("large"))
    looked_at = sum(iou.numel() for _, _, iou in tiles._pairs())
    assert 0 < looked_at < 0.08 * 3 * 50 * boxes.shape[1]


@pytest.mark.parametrize(("divisor", "mode"), [("union", "iou"), ("prior", "iof"), ("row", "iof")])
@pytest.mark.parametrize("shared", [True, False])
def test_overlaps_are_those_of_the_core_to_the_bit(divisor, mode, shared):
    rows, boxes = rows_of("grid"), priors_of("pyramid", "anywhere")
    boxes = boxes[0] if shared else boxes
    found = BoxOverlaps(rows, boxes, divisor)(100, 900)
    part = boxes[..., 100:900, :]
    if divisor == "prior":
        assert torch.equal(found, pairwise_overlap(part, rows, mode).mT)
    else:
        assert torch.equal(found, pairwise_overlap(rows, part, mode))


def test_slices_keep_to_the_budget(monkeypatch):
    monkeypatch.setattr(overlaps, "CHUNK", 100)
    assert overlaps.slices(25, 10) == [(0, 10), (10, 20), (20, 25)]
    assert overlaps.slices(3, 1000) == [(0, 1), (1, 2), (2, 3)]
    assert overlaps.slices(0, 10) == []
    assert overlaps.slices(5, 0) == [(0, 5)]
