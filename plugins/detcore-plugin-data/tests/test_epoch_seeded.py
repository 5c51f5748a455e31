from __future__ import annotations

import copy
import pickle
import random

import numpy as np
import pytest
import torch
from detcore_data import EpochSeeded, collate, seeded
from torch.utils.data import DataLoader


def _images(data, order):
    return {i: data[i]["image"].clone() for i in order}


def test_items_do_not_depend_on_order_or_on_the_global_state(random_dataset):
    data = seeded(random_dataset, 5)
    torch.manual_seed(1)
    first = _images(data, range(7))
    torch.manual_seed(2)
    torch.rand(11)
    second = _images(data, reversed(range(7)))
    assert all(torch.equal(first[i], second[i]) for i in range(7))


def test_seed_epoch_and_index_all_matter(random_dataset):
    data = seeded(random_dataset, 5)
    base = data[0]["image"]
    assert not torch.equal(base, data[1]["image"])
    assert not torch.equal(base, seeded(random_dataset, 6)[0]["image"])
    data.set_epoch(1)
    assert data.epoch == 1
    assert not torch.equal(base, data[0]["image"])
    data.set_epoch(0)
    assert torch.equal(base, data[0]["image"])
    assert torch.equal(data[-1]["image"], data[6]["image"])


def test_the_global_generator_is_left_as_it_was(random_dataset):
    data = seeded(random_dataset, 5)
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    data[2]
    assert torch.equal(torch.rand(4), expected)


class Careless(torch.utils.data.Dataset):
    """Draws from every global generator there is."""

    def __len__(self):
        return 5

    def __getitem__(self, index):
        return random.random(), np.random.rand(), float(torch.rand(()))


def test_other_generators_are_seeded_too():
    data = seeded(Careless(), 5)
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    expected = Careless()[0]
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    first = [data[i] for i in range(5)]
    assert Careless()[0] == expected
    assert [data[i] for i in range(5)] == first
    for column in zip(*first, strict=True):
        assert len(set(column)) == 5
    data.set_epoch(1)
    assert data[0] != first[0]


def test_the_global_generator_is_put_back_after_an_error(random_dataset):
    data = seeded(random_dataset, 5)
    before = torch.get_rng_state()
    with pytest.raises(IndexError):
        data[7]
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("persistent", [False, True])
def test_workers_give_the_same_items_and_follow_the_epoch(random_dataset, persistent):
    data = seeded(random_dataset, 5)
    loader = DataLoader(data, batch_size=2, collate_fn=collate, num_workers=2, persistent_workers=persistent)
    for epoch in range(2):
        data.set_epoch(epoch)
        found = [image for batch in loader for image in batch.images]
        assert all(torch.equal(image, data[i]["image"]) for i, image in enumerate(found))


def test_it_can_be_copied(random_dataset):
    data = EpochSeeded(random_dataset, 5, epoch=3)
    for copied in (pickle.loads(pickle.dumps(data)), copy.deepcopy(data)):
        assert copied.epoch == 3
        assert torch.equal(copied[0]["image"], data[0]["image"])
    assert data.class_map.names == ("a", "b")
    assert len(data) == 7


def test_a_repetition_draws_anew(random_dataset):
    items = seeded(random_dataset, seed=3)
    drawn = [items[2]["image"], items[2, 1]["image"], items[2, 2]["image"]]
    assert torch.equal(items[2, 0]["image"], drawn[0])
    assert torch.equal(items[2, 1]["image"], drawn[1])
    assert not torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[1], drawn[2])
    assert items[2, 1]["image_id"] == 2
