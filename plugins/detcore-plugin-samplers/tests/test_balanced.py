"""InstanceBalancedPosSampler, IoUBalancedNegSampler and CombinedSampler."""

import pytest
import torch
from detcore_samplers import (
    CombinedSampler,
    InstanceBalancedPosSampler,
    IoUBalancedNegSampler,
    PseudoSampler,
    RandomSampler,
    rank_in_group,
)

from detcore import build, dump
from detcore.errors import ConfigError
from detcore.structures import Assignment

torch.set_num_threads(1)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def assignment(*images):
    """Images as lists of (state, ground truth, quality), padded by ignored priors."""
    length = max((len(image) for image in images), default=0)
    rows = [[*image, *[(-1, 0, 0.0)] * (length - len(image))] for image in images]
    table = torch.tensor(rows, dtype=torch.float64).reshape(len(images), length, 3)
    return Assignment(table[..., 1].long(), table[..., 0].to(torch.int8), table[..., 2].float())


def positives(*counts):
    """Positives of objects in turn, so many of each."""
    return [(1, gt, 0.7) for gt, count in enumerate(counts) for _ in range(count)]


def negatives(*qualities):
    return [(0, 0, quality) for quality in qualities]


def per_object(sample, given, image=0):
    return given.gt_index[image][sample.positive[image]].bincount(minlength=4).tolist()


def same_alone_and_together(sampler, images):
    """Batch equals singles, at any place, however padded."""
    together = sampler.sample(assignment(*images), generator=seeded())
    backwards = sampler.sample(assignment(*images[::-1]), generator=seeded())
    for i, image in enumerate(images):
        alone = sampler.sample(assignment(image), generator=seeded())
        for batch, row in ((together, i), (backwards, len(images) - 1 - i)):
            for name in ("positive", "negative"):
                found = getattr(batch, name)[row]
                assert torch.equal(found[: len(image)], getattr(alone, name)[0])
                assert not found[len(image) :].any()


BATCH = [
    positives(20, 3, 1) + negatives(*torch.linspace(0, 0.5, 60).tolist()),
    positives(0, 5) + negatives(0.1, 0.2),
    negatives(*[0.0] * 40),
    [],
]


def test_ranks_within_groups():
    group = torch.tensor([[5, 7, 5, 5, 7], [1, 1, 1, 1, 1]])
    order = torch.tensor([[3, 1, 0, 4, 2], [4, 3, 2, 1, 0]])
    rank, first = rank_in_group(group, order)
    assert rank.tolist() == [[1, 0, 2, 0, 1], [4, 3, 2, 1, 0]]
    assert first.sum(1).tolist() == [2, 1]
    assert rank_in_group(group[:, :0], order[:, :0])[0].shape == (2, 0)


class TestInstanceBalanced:
    @pytest.mark.parametrize(
        ("counts", "num", "expected"),
        [
            ((20, 20, 20), 24, [(0, 5)] * 3),  # round(12 / 3) + 1 of each are drawn, 12 of these 15 kept
            ((20, 1, 1), 24, [(10, 10), (1, 1), (1, 1)]),  # 5 + 1 + 1, then others fill up
            ((2, 2), 24, [(2, 2), (2, 2)]),  # all that there are
            ((9,), 12, [(6, 6)]),
        ],
    )
    def test_about_as_many_of_each(self, counts, num, expected):
        given = assignment(positives(*counts) + negatives(*[0.1] * 50))
        sampler, generator = InstanceBalancedPosSampler(num=num, pos_fraction=0.5), seeded()
        for _ in range(10):
            sample = sampler.sample(given, generator=generator)
            for found, (least, most) in zip(per_object(sample, given), expected, strict=False):
                assert least <= found <= most
            assert sample.positive.sum() == min(num // 2, sum(counts))
            assert (sample.positive | sample.negative).sum() == num

    def test_halves_are_rounded_to_the_even_number(self):
        # 5 / 2 is 2.5: 2 + 1 of each
        given = assignment(positives(30, 30))
        sampler, generator = InstanceBalancedPosSampler(num=10, pos_fraction=0.5), seeded()
        found = [per_object(sampler.sample(given, generator=generator), given)[:2] for _ in range(20)]
        assert {max(counts) for counts in found} == {3}

    def test_every_positive_of_an_object_is_as_likely(self):
        given, generator = assignment(positives(10, 4)), seeded()
        sampler = InstanceBalancedPosSampler(num=6, pos_fraction=1.0)
        taken = (
            sum(sampler.sample(given, generator=generator).positive[0].float() for _ in range(1500)) / 1500
        )
        torch.testing.assert_close(taken[:10], taken[:10].mean().expand(10), rtol=0, atol=0.05)
        torch.testing.assert_close(taken[10:], taken[10:].mean().expand(4), rtol=0, atol=0.05)

    def test_batch_equals_singles(self):
        same_alone_and_together(InstanceBalancedPosSampler(num=16, pos_fraction=0.5), BATCH)

    def test_nothing(self):
        sample = InstanceBalancedPosSampler(num=8, pos_fraction=0.5).sample(assignment([], []))
        assert sample.positive.shape == sample.negative.shape == (2, 0)


class TestIoUBalanced:
    def test_equally_many_of_each_bin(self):
        # 300 easy ones, 30 in the middle, 30 hard ones
        given = assignment(negatives(*[0.05] * 300, *[0.25] * 30, *[0.45] * 30))
        sample = IoUBalancedNegSampler(num=60, pos_fraction=0.25).sample(given, generator=seeded())
        parts = [part.sum().item() for part in sample.negative[0].split((300, 30, 30))]
        assert parts == [20, 20, 20]

    def test_the_highest_overlap_of_all_stretches_the_bins_as_in_the_reference(self):
        given = assignment(positives(1) + negatives(*[0.05] * 300, *[0.29] * 30, *[0.45] * 30))
        given = given.replace(quality=given.quality.where(given.negative, 0.9))
        kwargs = {"num": 61, "pos_fraction": 0.25}
        default = IoUBalancedNegSampler(**kwargs).sample(given, generator=seeded())
        stretched = IoUBalancedNegSampler(**kwargs, bins_over="all").sample(given, generator=seeded())
        assert [p.sum().item() for p in default.negative[0].split((1, 300, 30, 30))] == [0, 20, 20, 20]
        _, easy, middle, hard = (p.sum().item() for p in stretched.negative[0].split((1, 300, 30, 30)))
        assert easy + middle + hard == 60
        assert easy + middle > hard
        assert easy > 30

    def test_a_bin_that_lacks_some_is_filled_up_from_the_others(self):
        given = assignment(negatives(*[0.05] * 100, 0.2, 0.5))
        sample = IoUBalancedNegSampler(num=30, pos_fraction=0.0).sample(given, generator=seeded())
        assert sample.negative[0].sum() == 30
        assert sample.negative[0][-2:].all()

    @pytest.mark.parametrize(
        ("floor_thr", "below"), [(0.1, [0.05] * 100), (0.0, [0.0] * 100), (0.3, [0.0, 0.2] * 50)]
    )
    def test_a_fraction_comes_from_below_the_floor(self, floor_thr, below):
        given = assignment(negatives(*below, *[0.35] * 100, *[0.45] * 100))
        sampler = IoUBalancedNegSampler(
            num=40, pos_fraction=0.5, floor_thr=floor_thr, floor_fraction=0.25, num_bins=2
        )
        sample = sampler.sample(given, generator=seeded())
        easy, *bins = (part.sum().item() for part in sample.negative[0].split((100, 100, 100)))
        assert (easy, sum(bins)) == (10, 30)

    def test_too_few_below_the_floor(self):
        given = assignment(negatives(0.0, *[0.4] * 100))
        sampler = IoUBalancedNegSampler(num=40, pos_fraction=0.5, floor_thr=0.1, floor_fraction=0.5)
        sample = sampler.sample(given, generator=seeded())
        assert sample.negative[0].sum() == 40
        assert sample.negative[0][0]

    def test_equal_overlaps(self):
        given = assignment(negatives(*[0.0] * 100))
        for num_bins in (1, 3):
            sampler = IoUBalancedNegSampler(num=12, pos_fraction=0.5, num_bins=num_bins)
            assert sampler.sample(given, generator=seeded()).negative.sum() == 12

    def test_negative_overlaps_fill_up_last(self):
        given = assignment(negatives(*[-1.0] * 50, *[0.2] * 5))
        sample = IoUBalancedNegSampler(num=10, pos_fraction=0.5).sample(given, generator=seeded())
        assert sample.negative[0].sum() == 10
        assert sample.negative[0][50:].all()

    def test_batch_equals_singles(self):
        for over in ("negatives", "all"):
            same_alone_and_together(
                IoUBalancedNegSampler(num=16, pos_fraction=0.25, floor_thr=0.1, bins_over=over), BATCH
            )

    def test_a_second_call_is_like_the_first(self):
        sampler = IoUBalancedNegSampler(num=16, pos_fraction=0.25)
        given = assignment(BATCH[0])
        first = sampler.sample(given, generator=seeded())
        assert torch.equal(sampler.sample(given, generator=seeded()).negative, first.negative)

    def test_nothing(self):
        sample = IoUBalancedNegSampler(num=8, pos_fraction=0.5).sample(assignment([], []))
        assert sample.positive.shape == sample.negative.shape == (2, 0)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"floor_thr": -1}, r"floor_thr: .*greater than or equal to 0; got -1"),
            ({"num_bins": 0}, r"num_bins: .*greater than or equal to 1; got 0"),
            ({"floor_fraction": 2}, r"floor_fraction: .*less than or equal to 1; got 2"),
            ({"bins_over": "some"}, r"bins_over: .*'negatives' or 'all'.*got 'some'"),
        ],
    )
    def test_errors(self, arguments, message):
        with pytest.raises(ConfigError, match=message):
            IoUBalancedNegSampler(num=8, pos_fraction=0.5, **arguments)


class TestCombined:
    def test_parts_get_its_numbers(self):
        sampler = CombinedSampler(num=48, pos_fraction=0.25, neg_pos_ub=3)
        assert isinstance(sampler.pos_sampler, InstanceBalancedPosSampler)
        assert isinstance(sampler.neg_sampler, IoUBalancedNegSampler)
        for part in (sampler.pos_sampler, sampler.neg_sampler):
            assert (part.num, part.quota.pos_fraction, part.quota.neg_pos_ub) == (48, 0.25, 3)

    def test_positives_of_the_one_and_negatives_of_the_other(self):
        given = assignment(positives(30, 2) + negatives(*[0.05] * 100, *[0.45] * 12))
        sampler = CombinedSampler(
            num=36, pos_fraction=1 / 3, neg_sampler={"type": "IoUBalancedNegSampler", "num_bins": 2}
        )
        sample = sampler.sample(given, generator=seeded())
        assert per_object(sample, given)[1] == 2
        assert [p.sum().item() for p in sample.negative[0].split((32, 100, 12))] == [0, 12, 12]
        assert sample.weight is None

    def test_of_two_alike_it_is_like_one(self):
        given = assignment(*BATCH)
        random = RandomSampler.spec()
        sampler = CombinedSampler(num=16, pos_fraction=0.5, pos_sampler=random, neg_sampler=random)
        counts = RandomSampler(num=16, pos_fraction=0.5).sample(given, generator=seeded())
        sample = sampler.sample(given, generator=seeded())
        assert torch.equal(sample.positive.sum(1), counts.positive.sum(1))
        assert torch.equal(sample.negative.sum(1), counts.negative.sum(1))

    def test_batch_equals_singles(self):
        same_alone_and_together(CombinedSampler(num=16, pos_fraction=0.25), BATCH)

    def test_dump_leaves_out_what_parts_get_from_it(self):
        sampler = CombinedSampler(num=16, pos_fraction=0.25)
        config = dump(sampler)
        assert "num" not in config["pos_sampler"]
        assert dump(build(config)) == config

    @pytest.mark.parametrize(
        ("part", "message"),
        [
            (PseudoSampler.spec(), "pos_sampler: PseudoSampler takes any number of an image, not num=16"),
            (RandomSampler(num=8, pos_fraction=0.5), "num=8, but its owner supplies 16"),
        ],
    )
    def test_errors(self, part, message):
        with pytest.raises(ConfigError, match=message):
            CombinedSampler(num=16, pos_fraction=0.5, pos_sampler=part)
