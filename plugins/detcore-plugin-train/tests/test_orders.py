"""Which images an epoch has, and which of them share a batch."""

import math
import signal
from collections import Counter
from itertools import chain

import pytest
import torch
from detcore_train import (
    AspectRatioGrouping,
    BatchGrouping,
    ClassBalancedOrder,
    DetectionData,
    EpochOrder,
    fit,
)
from detcore_train.engine.checkpointing import TrainingInterrupted
from detcore_train.engine.module import TrainingModule
from detcore_train.loader import EpochBatches, Shard
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from detcore.errors import ConfigError, DataError
from detcore.serialize import build, dump


class Facts:
    """Facts of made-up images: a set of labels and a size for each."""

    def __init__(self, labels, sizes=None, num_classes=3):
        self.num_classes, self.count = num_classes, len(labels)
        pairs = [(i, label) for i, own in enumerate(labels) for label in sorted(own)]
        self.present = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2)
        self.sizes = torch.tensor(sizes or [(4, 4)] * len(labels)).reshape(-1, 2)

    def __len__(self):
        return self.count


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def batches(length, size, shard=Shard(), *, drop_last=False, **options):
    return EpochBatches(length, size, 5, shard, shuffle=True, drop_last=drop_last, **options)


def reference_factors(labels, threshold):
    """Repeat factors as section 3 of the paper has them, image by image."""
    frequency = Counter(label for own in labels for label in own)
    return [
        max([1.0, *(math.sqrt(threshold / (frequency[label] / len(labels))) for label in own)])
        for own in labels
    ]


images = st.lists(st.sets(st.integers(0, 2)), min_size=1, max_size=30)


@given(images, st.floats(0.01, 1), st.integers(0, 5))
@settings(max_examples=80, deadline=None)
def test_rare_classes_come_as_often_as_the_paper_says(labels, threshold, epoch):
    order, facts = ClassBalancedOrder(oversample_thr=threshold), Facts(labels)
    expected = reference_factors(labels, threshold)
    assert order.factors(facts).tolist() == pytest.approx(expected)
    found = Counter(order.order(facts, epoch, generator(epoch)))
    assert found == Counter({i: math.ceil(factor - 1e-12) for i, factor in enumerate(expected)})
    assert sum(found.values()) == order.length(facts)


@given(images, st.floats(0.01, 1), st.integers(0, 5))
@settings(max_examples=80, deadline=None)
def test_random_rounding_is_up_or_down_and_of_one_length(labels, threshold, epoch):
    order, facts = ClassBalancedOrder(oversample_thr=threshold, rounding="random"), Facts(labels)
    found = Counter(order.order(facts, epoch, generator(epoch)))
    length = order.length(facts)
    assert sum(found.values()) == length
    whole = sum(reference_factors(labels, threshold))
    assert whole - 1e-6 <= length < whole + 1
    for i, factor in enumerate(reference_factors(labels, threshold)):
        stretched = factor * length / whole
        assert math.floor(stretched - 1e-6) <= found[i] <= math.ceil(stretched + 1e-6)
        assert found[i] >= 1


def test_random_rounding_is_right_on_average():
    facts = Facts([{0}] * 7 + [{1}])
    order = ClassBalancedOrder(oversample_thr=0.2, rounding="random")
    factor = math.sqrt(0.2 * 8)  # 1.26
    total = sum(Counter(order.order(facts, e, generator(e)))[7] for e in range(2000))
    assert total / 2000 == pytest.approx(factor * order.length(facts) / (7 + factor), abs=0.04)


def test_images_without_objects_come_once():
    facts = Facts([set(), {0}, set(), {1}, {1}, {1}, {1}, {1}])
    found = Counter(ClassBalancedOrder(oversample_thr=0.5).order(facts, 0, generator()))
    assert (found[0], found[1], found[2], found[3]) == (1, 2, 1, 1)
    nothing = Facts([set(), set()])
    assert sorted(ClassBalancedOrder(oversample_thr=0.5).order(nothing, 0, generator())) == [0, 1]


def reference_batches(order, upright, size, drop_last):
    """The reference's algorithm for two groups."""
    buckets, found = ([], []), []
    for index in order:
        bucket = buckets[0 if upright[index] else 1]
        bucket.append(index)
        if len(bucket) == size:
            found.append(bucket[:])
            bucket.clear()
    left = buckets[0] + buckets[1]
    while left:
        if len(left) == size or (len(left) < size and not drop_last) or len(left) > size:
            found.append(left[:size])
        left = left[size:]
    return found


@given(st.lists(st.booleans(), min_size=1, max_size=40), st.integers(1, 5), st.integers(1, 3), st.booleans())
@settings(max_examples=80, deadline=None)
def test_batches_of_one_shape_are_the_references_over_all_processes(upright, size, processes, drop_last):
    facts = Facts([set()] * len(upright), [(9, 4) if up else (4, 9) for up in upright])
    grouping = AspectRatioGrouping()

    def group(order, batch_size, source):
        return grouping.group(order, facts, batch_size, source)

    plain = batches(len(upright), size * processes).order(0)
    expected = reference_batches(plain, upright, size * processes, drop_last)
    parts = [
        list(batches(len(upright), size, Shard(rank, processes), drop_last=drop_last, group=group))
        for rank in range(processes)
    ]
    assert {len(part) for part in parts} == {len(expected)}
    for number, batch in enumerate(expected):
        together = list(chain.from_iterable(part[number] for part in parts))
        assert together[: len(batch)] == batch


def test_several_groups_and_their_boundaries():
    facts = Facts([set()] * 6, [(4, 2), (4, 4), (2, 4), (1, 4), (4, 4), (4, 2)])
    grouped = AspectRatioGrouping(boundaries=(1.0, 3.0)).group(range(6), facts, 2, generator())
    assert grouped == [1, 2, 0, 5, 4, 3]
    with pytest.raises(ConfigError, match="boundaries should rise"):
        AspectRatioGrouping(boundaries=(2.0, 1.0))


class Thrice(EpochOrder):
    """Every image three times, by index."""

    def __init__(self, *, wrong: bool = False) -> None:
        self.wrong = wrong

    def length(self, facts):
        return 3 * len(facts)

    def order(self, facts, epoch, generator):
        return [i for i in range(len(facts)) for _ in range(2 if self.wrong else 3)]


class Losing(BatchGrouping):
    def group(self, order, facts, batch_size, generator):
        return [order[0]] * len(order)


def data(toys, **options):
    toy = toys.resolve("datasets", "ToyDataset")
    return DetectionData(train=toy.spec(length=10), batch_size=4, workers=0, **options)


def test_a_repetition_is_transformed_anew(toys):
    seen = {}
    for batch in data(toys, order=Thrice()).train_loader(0):
        for image_id, image in zip(batch.image_ids, batch.images, strict=True):
            seen.setdefault(image_id, []).append(image)
    assert sorted(seen) == list(range(100, 110))
    for first, second, third in seen.values():
        assert not torch.equal(first, second)
        assert not torch.equal(second, third)


@pytest.mark.reliability(
    area="data",
    fault="an order or grouping of a plugin gives other images than it said",
    outcome="an error that says so, before the epoch",
)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"order": Thrice(wrong=True)}, r"the order of epoch 0 has 20 images, but its length\(\) is 30"),
        ({"grouping": Losing()}, "the grouping of epoch 0 has other images than the order"),
    ],
)
def test_an_order_that_breaks_its_word(toys, options, message):
    with pytest.raises(DataError, match=message):
        list(data(toys, **options).train_loader(0))


def test_an_order_and_no_shuffling_exclude_each_other(toys):
    with pytest.raises(ConfigError, match="shuffle=False has no effect, since order decides"):
        data(toys, order=Thrice(), shuffle=False)


@pytest.fixture
def ordered(config):
    """Three epochs with everything of this page, as it stands in a file."""
    config["data"] |= {
        "order": {"type": "ClassBalancedOrder", "oversample_thr": 0.9, "rounding": "random"},
        "grouping": {"type": "AspectRatioGrouping", "boundaries": [0.5, 1.0]},
        "final_transforms": [],
        "final_epochs": 1,
    }
    config["data"]["train"] |= {"length": 13, "transforms": [{"type": "ToyShift"}]}
    config["epochs"] = 3
    return config


def quiet():
    return Console(quiet=True)


def test_orders_are_dumped_and_built_again(ordered):
    experiment = build(ordered, kind="experiments")
    assert dump(build(dump(experiment), kind="experiments")) == dump(experiment)
    with_all = experiment.data.train_loader(0)
    assert len(with_all) > 4  # 13 images, some of them twice, by four
    assert len(list(with_all)) == len(with_all)


@pytest.mark.reliability(
    area="resume",
    fault="stopped within an epoch of a class-balanced, grouped order, before and in the last epochs",
    outcome="the resumed weights equal the unbroken run's, bit for bit",
)
@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("batch", [2, 11])
def test_resumed_within_an_epoch_equals_unbroken(ordered, tmp_path, monkeypatch, batch, workers):
    ordered["data"]["workers"] = workers
    unbroken = build(ordered, kind="experiments")
    fit(unbroken, tmp_path / "unbroken", accelerator="cpu", console=quiet())
    original = TrainingModule.training_step

    def training_step(self, *args):
        if self.batches_done == batch:
            signal.raise_signal(signal.SIGINT)
        return original(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingModule, "training_step", training_step)
        with pytest.raises(TrainingInterrupted):
            fit(build(ordered, kind="experiments"), tmp_path / "run", accelerator="cpu", console=quiet())
    again = build(ordered, kind="experiments")
    fit(again, tmp_path / "run", resume=True, accelerator="cpu", console=quiet())
    for name, value in unbroken.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], value), name


@pytest.mark.parametrize("workers", [0, 2])
def test_the_last_epochs_have_other_transforms(ordered, workers):
    ordered["data"] |= {"workers": workers, "final_epochs": 2}
    experiment = build(ordered, kind="experiments")
    done = 0
    loader = experiment.data.train_loader(0, position=lambda: done)
    loader.epochs = experiment.epochs
    shifted = []
    for epoch in range(3):
        done = epoch * len(loader)
        shifted.append({g.origin for batch in loader for g in batch.geometry})
    done = 1  # back within the first epoch, as a resumed run might be
    shifted.append({g.origin for batch in loader for g in batch.geometry})
    loader.close()
    assert shifted == [{(5.0, 0.0)}, {(0.0, 0.0)}, {(0.0, 0.0)}, {(5.0, 0.0)}]


def test_final_transforms_and_their_epochs_belong_together(toys, ordered):
    with pytest.raises(ConfigError, match="final_transforms and final_epochs belong together"):
        data(toys, final_epochs=2)
    with pytest.raises(ConfigError, match="final_transforms and final_epochs belong together"):
        data(toys, final_transforms=())
    ordered["data"]["final_epochs"] = 3
    with pytest.raises(ConfigError, match=r"data\.final_epochs is 3, but the run has only 3 epochs"):
        build(ordered, kind="experiments")
