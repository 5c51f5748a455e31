from __future__ import annotations

import pytest
import torch
from detcore_data import ExampleBatch, collate
from torch.utils.data import DataLoader

from detcore.errors import DataError


def test_examples_of_different_sizes_and_counts(example):
    batch = collate([example(6, 8, ((0, 0, 2, 2), (1, 1, 3, 4)), 3), example(5, 4, (), 9)])
    assert [tuple(image.shape) for image in batch.images] == [(3, 6, 8), (3, 5, 4)]
    assert all(type(image) is torch.Tensor and image.dtype == torch.uint8 for image in batch.images)
    assert batch.targets.boxes.shape == (2, 2, 4)
    assert batch.targets.boxes[0].tolist() == [[0, 0, 2, 2], [1, 1, 3, 4]]
    assert batch.targets.valid.tolist() == [[True, True], [False, False]]
    assert batch.targets.labels.tolist() == [[0, 1], [0, 0]]
    assert type(batch.targets.boxes) is torch.Tensor
    assert batch.image_ids == (3, 9)
    assert batch.files == ("3.png", "9.png")
    assert [g.original_size for g in batch.geometry] == [(6, 8), (5, 4)]
    assert len(batch) == 2


def test_only_images_without_objects(example):
    batch = collate([example(boxes=()), example(boxes=())])
    assert batch.targets.boxes.shape == (2, 1, 4)
    assert not batch.targets.valid.any()


def test_no_example():
    with pytest.raises(DataError, match="at least one example"):
        collate([])


def test_ignore_is_kept(example):
    item = example()
    item["ignore"] = torch.tensor([True])
    assert collate([item]).targets.ignore.tolist() == [[True]]


def test_masks_are_kept(masked_example):
    items = [
        masked_example(18, 24, ((2, 3, 10, 11), (0, 0, 24, 18))),
        masked_example(12, 16, ((1, 1, 5, 9),)),
    ]
    batch = collate(items)
    assert batch.targets.masks.areas().tolist() == [[64, 432], [32, 0]]
    assert collate([masked_example(12, 16, ())]).targets.masks.areas().tolist() == [[0]]


def test_to_moves_everything(example):
    batch = collate([example()]).to("meta")
    assert isinstance(batch, ExampleBatch)
    assert {batch.images[0].device.type, batch.targets.boxes.device.type} == {"meta"}
    assert batch.files == ("7.png",)


@pytest.mark.parametrize("workers", [0, 1])
def test_in_a_data_loader(random_dataset, workers):
    batches = list(DataLoader(random_dataset, batch_size=3, collate_fn=collate, num_workers=workers))
    assert [len(batch) for batch in batches] == [3, 3, 1]
    assert [i for batch in batches for i in batch.image_ids] == list(range(7))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="page-locked memory needs an accelerator")
def test_pin_memory(example):
    batch = collate([example()]).pin_memory()
    assert batch.images[0].is_pinned()
    assert batch.targets.boxes.is_pinned()
