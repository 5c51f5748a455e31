"""How candidates are found among millions of scores: equal to the plain way."""

import pytest
import torch
from detcore_postprocess.candidates import _at_most, _by_group_and_score, _nonzero
from hypothesis import given, settings
from hypothesis import strategies as st

SHAPES = st.lists(st.integers(0, 9), min_size=1, max_size=3)


def flags_of(shape, share, seed):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < share


@given(
    shape=SHAPES, share=st.sampled_from([0.0, 0.05, 0.5, 1.0]), seed=st.integers(0, 99), turned=st.booleans()
)
@settings(max_examples=150, deadline=None)
def test_where_flags_are_set(shape, share, seed, turned):
    flags = flags_of(shape, share, seed)
    flags = flags.transpose(0, -1) if turned else flags
    assert _nonzero(flags).tolist() == flags.flatten().nonzero().flatten().tolist()
    assert flags.sum() <= _at_most(flags) <= 8 * flags.sum() + 7


@given(count=st.integers(0, 60), seed=st.integers(0, 99))
@settings(max_examples=100, deadline=None)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_order_by_group_and_score(dtype, count, seed):
    generator = torch.Generator().manual_seed(seed)
    group = torch.randint(4, (count,), generator=generator)
    score = (torch.rand(count, generator=generator) * 8).round().div(8).to(dtype)  # many ties, 0 and 1 too
    wanted = sorted(range(count), key=lambda i: (int(group[i]), -float(score[i]), i))
    assert _by_group_and_score(group, score).tolist() == wanted
