"""OHEMSampler and ScoreHLRSampler."""

import pytest
import torch
from detcore_samplers import CombinedSampler, OHEMSampler, RandomSampler, ScoreHLRSampler
from detcore_samplers.groups import overlap_groups
from torchvision.ops import box_iou

from detcore.errors import ConfigError
from detcore.interfaces.sampler import SamplingPredictions
from detcore.structures import Assignment

torch.set_num_threads(1)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def assigned(state):
    state = torch.as_tensor(state, dtype=torch.int8)
    return Assignment(torch.zeros(state.shape, dtype=torch.int64), state, torch.zeros(state.shape))


def predictions(losses, scores=None, boxes=None):
    losses = torch.as_tensor(losses, dtype=torch.float32)
    scores = losses if scores is None else torch.as_tensor(scores, dtype=torch.float32)
    # far apart, where nothing is said of boxes
    corner = torch.arange(losses.shape[1])[:, None].expand(*losses.shape, 1) * 10.0
    far = torch.cat((corner, corner, corner + 5, corner + 5), -1)
    boxes = far if boxes is None else torch.as_tensor(boxes, dtype=torch.float32)
    return SamplingPredictions(losses, scores[..., None], boxes, scores[..., None])


class TestOHEM:
    def test_the_highest_losses(self):
        given = assigned([[1, 1, 1, 0, 0, 0, 0, -1]])
        seen = predictions([[0.1, 0.9, 0.5, 0.3, 0.8, 0.1, 0.4, 9.0]])
        sample = OHEMSampler(num=4, pos_fraction=0.5).sample(given, predict=lambda: seen)
        assert sample.positive.tolist() == [[False, True, True] + [False] * 5]
        assert sample.negative.tolist() == [[False] * 4 + [True, False, True, False]]
        assert sample.weight is None

    def test_of_equal_losses_the_first(self):
        seen = predictions([[0.5] * 8])
        sample = OHEMSampler(num=4, pos_fraction=0.5).sample(
            assigned([[1] * 4 + [0] * 4]), predict=lambda: seen
        )
        assert (sample.positive | sample.negative).tolist() == [[True, True, False, False] * 2]

    @pytest.mark.parametrize("arguments", [{}, {"neg_pos_ub": 2}, {"neg_pos_ub": 0}])
    def test_counts_are_those_of_random_sampling(self, arguments):
        state = torch.tensor([[1] * 9 + [0] * 90, [0] * 99, [1] * 2 + [0] * 3 + [-1] * 94, [-1] * 99])
        seen = predictions(torch.rand(4, 99, generator=seeded()))
        kwargs = {"num": 20, "pos_fraction": 0.3, **arguments}
        worst = OHEMSampler(**kwargs).sample(assigned(state), predict=lambda: seen)
        random = RandomSampler(**kwargs).sample(assigned(state), generator=seeded())
        assert torch.equal(worst.positive.sum(1), random.positive.sum(1))
        assert torch.equal(worst.negative.sum(1), random.negative.sum(1))

    def test_batch_equals_singles(self):
        state = torch.randint(-1, 2, (3, 50), generator=seeded())
        losses = torch.rand(3, 50, generator=seeded(1))
        sampler = OHEMSampler(num=16, pos_fraction=0.25)
        together = sampler.sample(assigned(state), predict=lambda: predictions(losses))
        for i in range(3):
            seen = predictions(losses[i : i + 1])
            alone = sampler.sample(assigned(state[i : i + 1]), predict=lambda seen=seen: seen)
            assert torch.equal(alone.positive[0], together.positive[i])
            assert torch.equal(alone.negative[0], together.negative[i])

    def test_nothing(self):
        seen = predictions(torch.zeros(2, 0))
        sample = OHEMSampler(num=4, pos_fraction=0.5).sample(
            assigned(torch.zeros(2, 0)), predict=lambda: seen
        )
        assert sample.positive.shape == (2, 0)

    def test_losses_are_needed(self):
        with pytest.raises(
            ValueError, match="predict is missing: OHEMSampler ranks by classification losses"
        ):
            OHEMSampler(num=4, pos_fraction=0.5).sample(assigned([[1, 0]]))

    def test_two_parts_ask_the_head_once(self):
        calls = []

        def predict():
            calls.append(1)
            return predictions([[0.5, 0.1, 0.7, 0.2]])

        part = OHEMSampler.spec()
        sampler = CombinedSampler(num=2, pos_fraction=0.5, pos_sampler=part, neg_sampler=part)
        sample = sampler.sample(assigned([[1, 1, 0, 0]]), predict=predict)
        assert (sample.positive | sample.negative).tolist() == [[True, False, True, False]]
        assert calls == [1]


def groups_by_loop(boxes, iou_thr):
    """Word for word what groups are."""
    group, left = [-1] * len(boxes), list(range(len(boxes)))
    overlaps = box_iou(boxes, boxes)
    while left:
        best = left[0]
        members = [i for i in left if i == best or overlaps[best, i] > iou_thr]
        for i in members:
            group[i] = best
        left = [i for i in left if i not in members]
    return group


class TestGroups:
    @pytest.mark.parametrize("iou_thr", [0.0, 0.3, 0.5, 0.9])
    def test_like_a_loop(self, iou_thr):
        corner = torch.rand(3, 60, 2, generator=seeded(), dtype=torch.float64) * 50
        boxes = torch.cat((corner, corner + 5 + torch.rand(3, 60, 2, generator=seeded(1)) * 30), -1)
        found = overlap_groups(boxes, torch.ones(3, 60, dtype=torch.bool), iou_thr)
        assert found.tolist() == [groups_by_loop(image, iou_thr) for image in boxes]

    def test_who_takes_no_part_is_alone(self):
        boxes = torch.tensor([[[0.0, 0, 10, 10]] * 4])
        found = overlap_groups(boxes, torch.tensor([[False, True, True, False]]), 0.5)
        assert found.tolist() == [[0, 1, 1, 3]]

    def test_nothing(self):
        assert overlap_groups(torch.zeros(2, 0, 4), torch.zeros(2, 0, dtype=torch.bool), 0.5).shape == (2, 0)


class TestScoreHLR:
    #: Two groups around the boxes with scores 0.9 and 0.6, and two easy negatives.
    STATE = ((0, 0, 0, 0, 0, 0, 0),)
    SCORES = ((0.6, 0.9, 0.8, 0.5, 0.7, 0.01, 0.02),)
    HERE, THERE = (0, 0, 10, 10), (50, 50, 60, 60)
    BOXES = ((THERE, HERE, HERE, THERE, HERE, (90, 90, 95, 95), (80, 80, 85, 85)),)

    def sample(self, num=5, losses=((1.0,) * 7,), **arguments):
        sampler = ScoreHLRSampler(num=num, pos_fraction=0.0, **arguments)
        seen = predictions(losses, self.SCORES, self.BOXES)
        return sampler.sample(assigned(self.STATE), predict=lambda: seen, generator=seeded())

    def test_ranks_by_place_in_the_group_then_by_score(self):
        # 1 (0.9), 0 (0.6) found groups; then 2 (0.8), 3 (0.5); then 4 (0.7)
        sample = self.sample(k=1.0)
        weight = sample.weight[0]
        assert sample.negative.tolist() == [[True] * 5 + [False] * 2]
        assert weight[:5].argsort(descending=True).tolist() == [1, 0, 2, 3, 4]
        linear = torch.tensor([4.0, 5, 3, 2, 1]) / 5
        torch.testing.assert_close(weight[:5], linear * 5 / linear.sum())
        assert sample.weight[0][5:].tolist() == [1, 1]

    def test_fewer_than_are_ranked(self):
        sample = self.sample(num=2, k=1.0)
        assert sample.negative[0].nonzero()[:, 0].tolist() == [0, 1]
        linear = torch.tensor([4.0, 5]) / 5
        torch.testing.assert_close(sample.weight[0][:2], linear * 2 / linear.sum())

    def test_others_fill_up_and_weigh_as_the_last(self):
        sample = self.sample(num=6, k=1.0)
        chosen = sample.negative[0]
        assert chosen.sum() == 6
        extra = 5 + chosen[5:].nonzero()[0, 0]
        torch.testing.assert_close(sample.weight[0][extra], sample.weight[0][4])

    def test_the_sum_of_losses_stays(self):
        losses = torch.rand(1, 7, generator=seeded()) + 0.1
        for arguments in ({}, {"k": 2.0, "bias": 0.3}, {"num": 3}):
            sample = self.sample(losses=losses, **arguments)
            chosen = sample.negative[0]
            torch.testing.assert_close((losses[0] * sample.weight[0])[chosen].sum(), losses[0][chosen].sum())

    def test_bias_and_power(self):
        even = self.sample(bias=1.0)
        torch.testing.assert_close(even.weight[0], torch.ones(7))
        torch.testing.assert_close(self.sample(k=0.0).weight[0], torch.ones(7))
        assert self.sample(k=2.0).weight[0][4] < self.sample(k=0.5).weight[0][4]

    def test_nothing_above_the_threshold(self):
        sample = self.sample(num=3, score_thr=0.95)
        assert sample.negative.sum() == 3
        assert (sample.weight == 1).all()

    def test_losses_of_zero(self):
        sample = self.sample(losses=((0.0,) * 7,))
        assert sample.weight.isfinite().all()

    def test_at_most_so_many_are_ranked(self):
        sample = self.sample(num=2, max_candidates=1, k=1.0)
        assert sample.negative[0][1]
        assert sample.negative.sum() == 2
        assert sample.weight[0][sample.negative[0]].unique().numel() == 1

    def test_positives_are_random_and_weigh_one(self):
        state = torch.tensor([[1] * 10 + [0] * 20])
        seen = predictions(torch.rand(1, 30, generator=seeded()))
        sample = ScoreHLRSampler(num=16, pos_fraction=0.25).sample(
            assigned(state), predict=lambda: seen, generator=seeded()
        )
        assert sample.positive.sum() == 4
        assert (sample.weight[sample.positive] == 1).all()
        assert (sample.positive | sample.negative).sum() == 16

    def test_batch_equals_singles(self):
        state = torch.randint(-1, 2, (4, 60), generator=seeded())
        state[3] = -1
        seen = predictions(torch.rand(4, 60, generator=seeded(1)))
        corner = torch.rand(4, 60, 2, generator=seeded(2)) * 40
        boxes = torch.cat((corner, corner + 15), -1)
        seen = seen._replace(boxes=boxes)
        sampler = ScoreHLRSampler(num=16, pos_fraction=0.25, score_thr=0.6)
        together = sampler.sample(assigned(state), predict=lambda: seen, generator=seeded())
        for i in range(4):
            own = SamplingPredictions(*(x[i : i + 1] for x in seen))
            alone = sampler.sample(
                assigned(state[i : i + 1]), predict=lambda own=own: own, generator=seeded()
            )
            assert torch.equal(alone.positive[0], together.positive[i])
            assert torch.equal(alone.negative[0], together.negative[i])
            torch.testing.assert_close(alone.weight[0], together.weight[i])

    def test_nothing(self):
        sampler, seen = ScoreHLRSampler(num=8, pos_fraction=0.5), predictions(torch.zeros(2, 0))
        sample = sampler.sample(assigned(torch.zeros(2, 0)), predict=lambda: seen)
        assert sample.weight.shape == (2, 0)

    def test_scores_are_needed(self):
        sampler = ScoreHLRSampler(num=8, pos_fraction=0.5)
        with pytest.raises(ValueError, match="predict missing: ScoreHLRSampler ranks by scores"):
            sampler.sample(assigned(self.STATE))
        seen = predictions(((1.0,) * 7,))._replace(scores=None)
        with pytest.raises(ValueError, match="scores missing: ScoreHLRSampler ranks by scores"):
            sampler.sample(assigned(self.STATE), predict=lambda: seen)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"k": -1}, r"k: .*greater than or equal to 0; got -1"),
            ({"bias": 2}, r"bias: .*less than or equal to 1; got 2"),
            ({"max_candidates": 0}, r"max_candidates: .*greater than or equal to 1; got 0"),
        ],
    )
    def test_errors(self, arguments, message):
        with pytest.raises(ConfigError, match=message):
            ScoreHLRSampler(num=8, pos_fraction=0.5, **arguments)

    def test_it_is_a_part_that_weighs(self):
        part = ScoreHLRSampler.spec(k=1.0)
        sampler = CombinedSampler(num=5, pos_fraction=0.0, pos_sampler=OHEMSampler.spec(), neg_sampler=part)
        seen = predictions(((1.0,) * 7,), self.SCORES, self.BOXES)
        sample = sampler.sample(assigned(self.STATE), predict=lambda: seen, generator=seeded())
        torch.testing.assert_close(sample.weight, self.sample(k=1.0).weight)
