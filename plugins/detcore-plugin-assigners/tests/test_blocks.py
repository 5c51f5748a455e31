"""Blocks and pieces: everything once, nothing too large, and nobody pays for others' padding."""

import pytest
import torch
from detcore_assigners import overlaps
from detcore_assigners.blocks import blocks
from detcore_assigners.choice import smallest
from detcore_assigners.pieces import pieces

from detcore.structures import ImageBatch, Predictions, Targets


def flags(*lengths, rows=12):
    return torch.arange(rows) < torch.tensor(lengths)[:, None]


@pytest.mark.parametrize("chunk", [1, 7, 40, 10_000])
@pytest.mark.parametrize("lengths", [(5, 0, 12, 3), (0, 0), (12,), (1, 1, 1)])
def test_every_row_once(lengths, chunk, monkeypatch):
    monkeypatch.setattr(overlaps, "CHUNK", chunk)
    matchable = flags(*lengths)
    matchable[0, 1] = False  # a hole: a row to ignore
    seen = torch.zeros_like(matchable, dtype=torch.int64)
    for block in blocks(matchable, 10):
        there = len(block.images) * (block.rows.stop - block.rows.start)
        assert there * 10 <= chunk or block.rows.stop - block.rows.start == 1
        seen[block.images, block.rows] += 1
        assert torch.equal(block.of(seen), seen[block.images][:, block.rows])
    assert (seen[matchable] == 1).all()
    assert (seen <= 1).all()


def test_one_crowded_image_costs_its_own_rows_only(monkeypatch):
    monkeypatch.setattr(overlaps, "CHUNK", 500)
    matchable = flags(*[2] * 31, 5000, rows=5000)
    looked_at = sum(len(b.images) * (b.rows.stop - b.rows.start) for b in blocks(matchable, 1))
    assert looked_at <= 5000 + 31 * 16


def test_no_rows_no_blocks():
    assert blocks(torch.zeros(2, 3, dtype=torch.bool), 10) == []
    assert blocks(torch.zeros(0, 3, dtype=torch.bool), 10) == []
    (block,) = blocks(torch.ones(2, 3, dtype=torch.bool), 0)
    assert block.rows == slice(0, 3)


def test_smallest_takes_the_first_of_equals():
    values = torch.tensor([[0.0, -1.5, torch.nan, -0.0, -torch.inf, torch.inf, -1.5, 2.0]])
    assert smallest(values, 8).tolist() == [[4, 1, 6, 0, 3, 7, 2, 5]]
    assert smallest(values, 2).tolist() == [[4, 1]]
    assert smallest(torch.zeros(2, 0), 0).shape == (2, 0)
    random = torch.randn(3, 50, generator=torch.Generator().manual_seed(0))
    assert torch.equal(smallest(random, 50), random.argsort(dim=1))


@pytest.mark.parametrize("chunk", [1, 12 * 7, 10_000])
def test_pieces_cut_everything_per_image(chunk, monkeypatch):
    monkeypatch.setattr(overlaps, "CHUNK", chunk)
    size = (8, 8)
    images = [
        {
            "boxes": torch.rand(n, 4),
            "labels": torch.arange(n),
            "masks": torch.rand(n, *size, generator=torch.Generator().manual_seed(n)) > 0.5,
        }
        for n in (2, 0, 6, 1)
    ]
    targets = Targets.stack(images).replace(semantic=torch.zeros(4, 2, 2, dtype=torch.int64))
    predictions = Predictions(torch.rand(4, 7, 3), torch.rand(4, 7, 4), torch.rand(4, 7, 2, 2))
    batch = ImageBatch.of(torch.zeros(4, 3, *size))
    seen = []
    for piece in pieces(predictions, targets, batch, targets.matchable):
        count, rows = piece.targets.boxes.shape[:2]
        here = slice(piece.start, piece.start + count)
        seen += [i for i in range(4)[here] if images[i]["boxes"].numel()]
        assert rows == max(len(image["boxes"]) for image in images[here])
        assert torch.equal(piece.targets.masks.dense(), targets.masks.dense()[here, :rows])
        assert torch.equal(piece.targets.labels, targets.labels[here, :rows])
        assert torch.equal(piece.predictions.masks, predictions.masks[here])
        assert torch.equal(piece.batch.sizes, batch.sizes[here])
    assert seen == [0, 2, 3]
