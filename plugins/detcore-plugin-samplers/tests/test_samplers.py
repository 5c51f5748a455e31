"""PseudoSampler and RandomSampler."""

import pickle

import pytest
import torch
from detcore_samplers import PseudoSampler, RandomSampler
from detcore_samplers.keys import random_keys

from detcore.errors import ConfigError
from detcore.structures import Assignment

torch.set_num_threads(1)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def assignment(*states):
    """States of several images, padded by ignored priors."""
    length = max((len(s) for s in states), default=0)
    state = torch.full((len(states), length), -1, dtype=torch.int8)
    for i, given in enumerate(states):
        state[i, : len(given)] = torch.as_tensor(given, dtype=torch.int8)
    return Assignment(torch.zeros(state.shape, dtype=torch.int64), state, torch.zeros(state.shape))


def states(positives, negatives, ignored=0, seed=0):
    given = torch.tensor([1] * positives + [0] * negatives + [-1] * ignored)
    return given[torch.randperm(len(given), generator=seeded(seed))]


MANY = [
    states(30, 200, 20),
    states(0, 100, 5, seed=1),
    states(3, 10, 7, seed=2),
    states(0, 0, 9),
    states(50, 4, seed=3),
]


def test_pseudo_takes_everything_assigned():
    given = assignment(*MANY)
    sample = PseudoSampler().sample(given)
    assert torch.equal(sample.positive, given.state == 1)
    assert torch.equal(sample.negative, given.state == 0)
    assert sample.weight is None
    assert not PseudoSampler.subsamples


@pytest.mark.parametrize(
    ("arguments", "positives", "negatives"),
    [
        ({"num": 40, "pos_fraction": 0.5}, [20, 0, 3, 0, 20], [20, 40, 10, 0, 4]),
        ({"num": 41, "pos_fraction": 0.25}, [10, 0, 3, 0, 10], [31, 41, 10, 0, 4]),
        ({"num": 40, "pos_fraction": 0.0}, [0, 0, 0, 0, 0], [40, 40, 10, 0, 4]),
        ({"num": 40, "pos_fraction": 1.0}, [30, 0, 3, 0, 40], [10, 40, 10, 0, 0]),
        ({"num": 40, "pos_fraction": 0.5, "neg_pos_ub": 2}, [20, 0, 3, 0, 20], [20, 2, 6, 0, 4]),
        ({"num": 40, "pos_fraction": 0.5, "neg_pos_ub": 0}, [20, 0, 3, 0, 20], [0, 0, 0, 0, 0]),
        ({"num": 40, "pos_fraction": 0.5, "neg_pos_ub": -1}, [20, 0, 3, 0, 20], [20, 40, 10, 0, 4]),
        ({"num": 9999, "pos_fraction": 0.5}, [30, 0, 3, 0, 50], [200, 100, 10, 0, 4]),
    ],
)
def test_random_counts(arguments, positives, negatives):
    given = assignment(*MANY)
    sample = RandomSampler(**arguments).sample(given, generator=seeded())
    assert sample.positive.sum(1).tolist() == positives
    assert sample.negative.sum(1).tolist() == negatives
    assert not (sample.positive & ~given.positive).any()
    assert not (sample.negative & ~given.negative).any()
    assert sample.weight is None


def test_an_image_keeps_its_sample_in_any_batch():
    sampler = RandomSampler(num=20, pos_fraction=0.5)
    together = sampler.sample(assignment(*MANY), generator=seeded())
    backwards = sampler.sample(assignment(*MANY[::-1]), generator=seeded())
    for i, given in enumerate(MANY):
        alone = sampler.sample(assignment(given), generator=seeded())
        for batch, row in ((together, i), (backwards, len(MANY) - 1 - i)):
            assert torch.equal(batch.positive[row, : len(given)], alone.positive[0])
            assert torch.equal(batch.negative[row, : len(given)], alone.negative[0])


def test_padding_in_front_changes_nothing():
    """As an owner makes it that prepends padded ground truths."""
    sampler = RandomSampler(num=20, pos_fraction=0.5)
    padded = assignment(torch.cat((torch.full((7,), -1), MANY[0])))
    with_padding = sampler.sample(padded, generator=seeded())
    without = sampler.sample(assignment(MANY[0]), generator=seeded())
    assert torch.equal(with_padding.positive[:, 7:], without.positive)
    assert torch.equal(with_padding.negative[:, 7:], without.negative)


def test_other_images_and_other_states_of_the_generator_give_other_samples():
    sampler = RandomSampler(num=20, pos_fraction=0.5)
    generator = seeded()
    first = sampler.sample(assignment(MANY[0]), generator=generator)
    second = sampler.sample(assignment(MANY[0]), generator=generator)
    again = sampler.sample(assignment(MANY[0]), generator=seeded())
    assert torch.equal(first.negative, again.negative)
    assert not torch.equal(first.negative, second.negative)
    mirrored = sampler.sample(assignment(MANY[0].flip(0)), generator=seeded())
    assert not torch.equal(first.negative, mirrored.negative.flip(1))


def test_the_order_of_ground_truths_does_not_matter():
    given = assignment(MANY[0])
    other = given.replace(gt_index=given.gt_index + 3)
    assert torch.equal(random_keys(given, seeded()), random_keys(other, seeded()))


def test_the_global_generator_is_the_default():
    sampler = RandomSampler(num=20, pos_fraction=0.5)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        first = sampler.sample(assignment(MANY[0]))
        torch.manual_seed(5)
        assert torch.equal(sampler.sample(assignment(MANY[0])).negative, first.negative)
        assert not torch.equal(sampler.sample(assignment(MANY[0])).negative, first.negative)


def test_every_prior_is_as_likely():
    sampler = RandomSampler(num=20, pos_fraction=0.5)
    given, generator, draws = assignment(states(40, 60)), seeded(), 2000
    samples = [sampler.sample(given, generator=generator) for _ in range(draws)]
    positive = torch.stack([s.positive[0] for s in samples]).float()
    negative = torch.stack([s.negative[0] for s in samples]).float()
    for taken, among, rate in (
        (positive, given.positive[0], 10 / 40),
        (negative, given.negative[0], 10 / 60),
    ):
        error = (rate * (1 - rate) / draws) ** 0.5
        assert (taken.mean(0)[among] - rate).abs().max() < 4.5 * error
        # and pairs are taken as often as of independent draws without replacement
        together = (taken.T @ taken / draws)[among][:, among]
        count = int(among.sum())
        pair = rate * (10 - 1) / (count - 1)
        apart = together[~torch.eye(count, dtype=torch.bool)]
        assert (apart - pair).abs().max() < 6 * (pair * (1 - pair) / draws) ** 0.5


def test_keys_are_uniform_even_for_like_images():
    """Images that differ in one prior, and priors next to each other, have unrelated keys."""
    state = torch.zeros(64, 500, dtype=torch.int8)
    state[torch.arange(64), torch.arange(64)] = 1
    keys = random_keys(assignment(*state), seeded())
    assert (keys >= 0).all()
    assert keys.unique().numel() == keys.numel()
    uniform = keys.double() / 2**62
    counts = torch.histc(uniform, bins=20, min=0, max=1)
    assert (
        (counts - 1600) ** 2 / 1600
    ).sum() < 44  # chi square, 19 degrees of freedom: exceeded once in 1000
    correlation = torch.corrcoef(uniform)[~torch.eye(64, dtype=torch.bool)]
    assert correlation.abs().max() < 0.25
    assert (
        torch.corrcoef(torch.stack((uniform[:, 1:].flatten(), uniform[:, :-1].flatten())))[0, 1].abs() < 0.03
    )


def test_no_priors_and_no_images():
    for sampler in (PseudoSampler(), RandomSampler(num=4, pos_fraction=0.5)):
        assert sampler.sample(assignment([], [])).positive.shape == (2, 0)
        nothing = Assignment(torch.zeros(0, 5).long(), torch.zeros(0, 5, dtype=torch.int8), torch.zeros(0, 5))
        assert sampler.sample(nothing).negative.shape == (0, 5)


def test_predictions_are_not_asked_for():
    def predict():
        raise AssertionError("a random sampler needs no predictions")

    RandomSampler(num=4, pos_fraction=0.5).sample(assignment(*MANY), predict=predict)
    PseudoSampler().sample(assignment(*MANY), predict=predict)


def test_compiles_whole():
    torch.compiler.reset()
    sampler, given = RandomSampler(num=20, pos_fraction=0.5, neg_pos_ub=3), assignment(*MANY)
    sample = torch.compile(sampler.sample, fullgraph=True, backend="aot_eager")(given)
    assert sample.positive.sum(1).tolist() == [10, 0, 3, 0, 10]
    assert sample.negative.sum(1).tolist() == [10, 3, 9, 0, 4]


def test_parameters():
    sampler = pickle.loads(pickle.dumps(RandomSampler(num=256, pos_fraction=0.5, neg_pos_ub=-1)))
    assert (sampler.num, sampler.quota.pos_fraction, sampler.quota.neg_pos_ub) == (256, 0.5, -1)
    assert RandomSampler.subsamples


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num": 0, "pos_fraction": 0.5}, r"num: .*greater than or equal to 1; got 0"),
        ({"num": 8, "pos_fraction": 1.5}, r"pos_fraction: .*less than or equal to 1; got 1.5"),
        (
            {"num": 8, "pos_fraction": 0.5, "neg_pos_ub": -2},
            r"neg_pos_ub: .*greater than or equal to -1.*got -2",
        ),
        (
            {"num": 8, "pos_fraction": 0.5, "add_gt_as_proposals": True},
            "unknown parameter 'add_gt_as_proposals'",
        ),
        ({"num": 8}, "pos_fraction: RandomSampler needs it from its owner, and has none; give it"),
    ],
)
def test_errors(arguments, message):
    with pytest.raises(ConfigError, match=message):
        RandomSampler(**arguments)
