"""The choice of candidates."""

import pytest
import torch
from detcore_postprocess import candidates, select_candidates
from hypothesis import given, settings
from hypothesis import strategies as st

from detcore.errors import ConfigError


def as_lists(chosen):
    """Per image its (prior, label, score)."""
    rows = zip(*(chosen.prior, chosen.label, chosen.score, chosen.valid), strict=True)
    return [
        list(zip(prior[valid].tolist(), label[valid].tolist(), score[valid].tolist(), strict=True))
        for prior, label, score, valid in rows
    ]


def dense(*args, **kwargs):
    """The choice as it is made under the compiler."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.compiler, "is_compiling", lambda: True)
        return select_candidates(*args, **kwargs)


def crowded(*args, **kwargs):
    """The choice as it is made of very many."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(candidates, "CROWD", 0)
        return select_candidates(*args, **kwargs)


def fixed(*args, **kwargs):
    """The choice in fixed shapes, in eager mode."""
    return select_candidates(*args, **kwargs, fixed_shape=True)


@pytest.fixture(params=[select_candidates, dense, crowded, fixed])
def select(request):
    return request.param


def test_threshold_is_strict_and_order_is_by_score_then_index(select):
    scores = torch.tensor([[[0.5, 0.9], [0.7, 0.5], [0.9, 0.7]]])
    chosen = select(scores, score_thr=0.5)
    assert as_lists(chosen) == [
        [
            (0, 1, pytest.approx(0.9)),
            (2, 0, pytest.approx(0.9)),
            (1, 0, pytest.approx(0.7)),
            (2, 1, pytest.approx(0.7)),
        ]
    ]


def test_cap_is_per_level_and_the_first_of_equals_stays(select):
    scores = torch.full((1, 6, 2), 0.5)
    chosen = select(scores, nms_pre=3, levels=(2, 4))
    assert [row[:2] for row in as_lists(chosen)[0]] == [(0, 0), (0, 1), (1, 0), (2, 0), (2, 1), (3, 0)]
    chosen = select(scores, nms_pre=3)
    assert [row[:2] for row in as_lists(chosen)[0]] == [(0, 0), (0, 1), (1, 0)]


def test_priors_that_are_not_valid(select):
    scores = torch.full((2, 3, 1), 0.5)
    valid = torch.tensor([[True, False, True], [False, False, False]])
    assert [[row[0] for row in image] for image in as_lists(select(scores, valid=valid))] == [[0, 2], []]


@pytest.mark.parametrize("shape", [(2, 0, 3), (0, 4, 3), (2, 4, 3)])
def test_nothing(select, shape):
    chosen = select(torch.zeros(shape), nms_pre=5)
    assert len(chosen.valid) == shape[0]
    assert not chosen.valid.any()


def test_an_empty_level(select):
    assert as_lists(select(torch.ones(1, 2, 1), nms_pre=1, levels=(0, 1, 0, 1))) == [
        [(0, 0, 1.0), (1, 0, 1.0)]
    ]


def test_nan_is_no_candidate(select):
    assert as_lists(select(torch.tensor([[[float("nan"), 0.5]]]))) == [[(0, 1, 0.5)]]


def test_padding_is_zero(select):
    scores = torch.tensor([[[0.9], [0.8]], [[0.9], [0.1]]])
    chosen = select(scores, score_thr=0.5)
    for column in chosen:
        assert not column[~chosen.valid].any()


def test_width_is_what_is_needed():
    assert select_candidates(torch.rand(3, 1000, 2), score_thr=2.0).prior.shape == (3, 0)
    scores = torch.zeros(2, 1000, 2)
    scores[1, :7, 0] = 0.5
    assert select_candidates(scores, score_thr=0.1).prior.shape == (2, 7)


def test_scores_in_another_memory_order(select):
    torch.manual_seed(0)
    scores = torch.rand(2, 3, 50).transpose(1, 2)
    assert as_lists(select(scores, score_thr=0.2, nms_pre=9, levels=(20, 30))) == as_lists(
        select_candidates(scores.contiguous(), score_thr=0.2, nms_pre=9, levels=(20, 30))
    )


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 1000),
    levels=st.lists(st.integers(0, 12), min_size=1, max_size=4),
    cap=st.one_of(st.none(), st.integers(1, 15)),
    steps=st.sampled_from([1, 3, 1000]),
)
def test_three_ways_one_result(seed, levels, cap, steps):
    generator = torch.Generator().manual_seed(seed)
    scores = (torch.rand(2, sum(levels), 3, generator=generator) * steps).round() / steps
    valid = torch.rand(2, sum(levels), generator=generator) > 0.2
    kwargs = {"score_thr": 0.3, "nms_pre": cap, "levels": levels, "valid": valid}
    found = as_lists(select_candidates(scores, **kwargs))
    assert found == as_lists(dense(scores, **kwargs)) == as_lists(crowded(scores, **kwargs))
    expected, start = [[], []], 0
    for count in levels:
        for b in range(2):
            pairs = [
                (n, k, float(scores[b, n, k]))
                for n in range(start, start + count)
                for k in range(3)
                if scores[b, n, k] > 0.3 and valid[b, n]
            ]
            expected[b] += sorted(pairs, key=lambda pair: -pair[2])[:cap]
        start += count
    assert found == expected


def test_levels_must_add_up():
    with pytest.raises(ConfigError, match=r"levels \[2, 3\] add up to 5 priors, but there are scores for 6"):
        select_candidates(torch.zeros(1, 6, 2), levels=(2, 3))
