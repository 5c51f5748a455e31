from itertools import chain

import pytest
import torch
from detcore_train import DetectionData
from detcore_train.loader import EpochBatches, EpochLoader, Shard, ShardedBatches

from detcore.errors import ConfigError, DataError
from detcore.structures import ClassMap


def flat(lists):
    return list(chain.from_iterable(lists))


def batches(length=10, size=3, shard=Shard(), *, seed=0, shuffle=True, drop_last=False):
    return EpochBatches(length, size, seed, shard, shuffle=shuffle, drop_last=drop_last)


def test_an_epoch_has_every_image_once_in_a_new_order():
    sampler = batches()
    first = list(sampler)
    assert [len(b) for b in first] == [3, 3, 3, 1]
    assert sorted(flat(first)) == list(range(10))
    sampler.epoch = 1
    assert list(sampler) != first
    sampler.epoch = 0
    assert list(sampler) == first
    assert list(batches(seed=1)) != first


def test_without_shuffling_by_index():
    assert list(batches(shuffle=False)) == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9]]


def test_drop_last():
    assert [len(b) for b in batches(drop_last=True)] == [3, 3, 3]


def test_skipping_continues_the_same_epoch():
    sampler = batches()
    whole = list(sampler)
    sampler.skip = 2
    assert list(sampler) == whole[2:]
    assert len(sampler) == 2
    assert sampler.per_epoch == 4


@pytest.mark.parametrize(("length", "size"), [(10, 2), (9, 2), (7, 3), (1, 2)])
@pytest.mark.parametrize("count", [2, 3])
def test_shards_together_see_the_batches_of_one_process(length, size, count):
    whole = list(batches(length, size * count))
    parts = [list(batches(length, size, Shard(rank, count))) for rank in range(count)]
    assert {len(part) for part in parts} == {len(whole)}
    for number, batch in enumerate(whole):
        together = flat(part[number] for part in parts)
        assert together[: len(batch)] == batch
        assert all(part[number] for part in parts)  # each process takes each step


@pytest.mark.parametrize("length", [0, 1, 5, 8])
def test_validation_shards_have_every_image_exactly_once(length):
    parts = [flat(ShardedBatches(length, 2, Shard(rank, 3))) for rank in range(3)]
    assert sorted(flat(parts)) == list(range(length))
    assert [len(ShardedBatches(length, 2, Shard(rank, 3))) for rank in range(3)] == [
        -(-len(p) // 2) for p in parts
    ]


@pytest.fixture
def dataset(toys):
    return toys.resolve("datasets", "ToyDataset")(length=10)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_begins_at_its_position(dataset, workers):
    done = 0
    loader = EpochLoader(dataset, batches(), workers=workers, position=lambda: done)
    epochs = []
    for epoch in range(2):
        done = 4 * epoch
        epochs.append([batch.images for batch in loader])
    done = 6
    rest = [batch.images for batch in loader]
    loader.close()
    assert len(loader) == 4
    assert len(rest) == 2
    for images, expected in zip(rest, epochs[1][2:], strict=True):
        assert all(torch.equal(a, b) for a, b in zip(images, expected, strict=True))


def test_augmentation_depends_on_seed_epoch_and_index_only(dataset):
    def by_id(**options):
        done = options.pop("done", 0)
        loader = EpochLoader(dataset, batches(**options), seed=options.get("seed", 0), position=lambda: done)
        return {i: image for b in loader for i, image in zip(b.image_ids, b.images, strict=True)}

    one, other = by_id(size=3), by_id(size=5, shuffle=False)
    assert all(torch.equal(one[i], other[i]) for i in one)
    assert not torch.equal(one[100], by_id(done=4)[100])
    assert not torch.equal(one[100], by_id(seed=1)[100])


def test_data_gives_root_and_classes_to_its_datasets(toys, tmp_path):
    toy = toys.resolve("datasets", "ToyDataset")
    data = DetectionData(root=tmp_path, train=toy.spec(classes=("green", "red")), val=toy.spec(), workers=0)
    assert data.train.root == data.val.root == tmp_path
    assert data.val.class_map.names == ("green", "red") == data.class_map.names
    data = DetectionData(train=toy.spec(), val=toy.spec(root=tmp_path), classes=("red",))
    assert data.train.class_map.names == ("red",)
    assert data.train.root is None
    assert data.val.root == tmp_path


def test_classes_that_differ_are_an_error(toys):
    toy = toys.resolve("datasets", "ToyDataset")
    with pytest.raises(DataError, match=r"only in the training set: green; only in the validation set: blue"):
        DetectionData(train=toy.spec(), val=toy.spec(classes=("red", "blue")))
    with pytest.raises(DataError, match=r"ordered red, green and green, red"):
        DetectionData(train=toy.spec(), val=toy.spec(classes=("green", "red")))


def test_data_needs_a_dataset():
    with pytest.raises(ConfigError, match="got neither 'train' nor 'val'"):
        DetectionData()


def test_missing_parts_of_data(toys):
    toy = toys.resolve("datasets", "ToyDataset")
    only_val = DetectionData(val=toy.spec())
    assert only_val.class_map == ClassMap(("red", "green"), (1, 2))
    with pytest.raises(DataError, match=r"there is no training set: give data\.train"):
        only_val.train_loader(0)
    with pytest.raises(DataError, match=r"there is no validation set: give data\.val"):
        DetectionData(train=toy.spec()).val_loader()
    small = DetectionData(train=toy.spec(length=3), batch_size=4, drop_last=True)
    with pytest.raises(DataError, match="3 images: too few for one batch of 4 with drop_last"):
        small.train_loader(0)
    with pytest.raises(DataError, match="has 0 images"):
        DetectionData(train=toy.spec(length=0)).train_loader(0)
