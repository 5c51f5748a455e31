import pytest
import torch
from detcore_train import CosineSchedule, OneCycleSchedule, PolySchedule, StepSchedule
from detcore_train.interfaces import Progress
from hypothesis import given, settings
from hypothesis import strategies as st

from detcore.errors import ConfigError


def factors(schedule, epochs=10, per_epoch=10):
    return [schedule.factor(Progress(step, per_epoch, epochs)) for step in range(epochs * per_epoch)]


def test_milestones_in_epochs_and_as_fractions_agree():
    by_epoch = StepSchedule(milestones=(5, 9), warmup_steps=0)
    by_fraction = StepSchedule(milestones=(0.5, 0.9), warmup_steps=0)
    assert factors(by_epoch) == factors(by_fraction)
    assert factors(by_epoch)[49] == 1.0
    assert factors(by_epoch)[50] == pytest.approx(0.1)
    assert factors(by_epoch)[90] == pytest.approx(0.01)


def test_defaults_are_the_fields_1x():
    values = factors(StepSchedule(), epochs=12, per_epoch=100)
    assert values[0] == pytest.approx(0.001)
    assert values[499] == 1.0
    assert values[799] == 1.0
    assert values[800] == pytest.approx(0.1)
    assert values[1100] == pytest.approx(0.01)


@pytest.mark.parametrize("warmup", ["linear", "exp"])
def test_the_warmup_rises_to_one(warmup):
    for end, first_full in (("last_step", 9), ("next_step", 10)):
        schedule = StepSchedule(
            milestones=(), warmup_steps=10, warmup_ratio=0.2, warmup=warmup, warmup_end=end
        )
        values = factors(schedule)
        assert values[0] == pytest.approx(0.2)
        assert sorted(values) == values
        assert values[first_full - 1] < 1.0
        assert values[first_full] == pytest.approx(1.0)


def test_constant_warmup():
    values = factors(StepSchedule(milestones=(), warmup_steps=5, warmup_ratio=0.3, warmup="constant"))
    assert values[:6] == [0.3] * 4 + [1.0] * 2


@pytest.mark.parametrize("steps", [0, 1])
def test_no_warmup(steps):
    assert factors(StepSchedule(milestones=(), warmup_steps=steps))[0] == 1.0


def test_cosine_begins_at_one_and_ends_near_its_floor():
    values = factors(CosineSchedule(min_ratio=0.1, warmup_steps=0))
    assert values[0] == 1.0
    assert values[50] == pytest.approx(0.55)
    assert 0.1 < values[-1] < 0.101
    assert sorted(values, reverse=True) == values


def test_cosine_by_epoch_and_with_a_begin():
    values = factors(CosineSchedule(by="epoch", begin=0.5, warmup_steps=0))
    assert values[:60] == [1.0] * 60
    assert len(set(values)) == 5
    assert values[60] < 1.0


def test_chained_cosine_differs_only_where_the_warmup_overlaps():
    plain = factors(CosineSchedule(min_ratio=0.1, warmup_steps=0))
    assert factors(CosineSchedule(min_ratio=0.1, warmup_steps=0, chained=True)) == pytest.approx(plain)
    assert CosineSchedule(chained=True, warmup_steps=500).factor(Progress(100, 10, 10)) >= 0  # past the end


def test_poly_reaches_its_floor_at_the_last_step():
    values = factors(PolySchedule(power=2.0, min_ratio=0.01, warmup_steps=0))
    assert values[0] == 1.0
    assert values[-1] == pytest.approx(0.01)
    line = factors(PolySchedule(warmup_steps=0))
    assert line[33] == pytest.approx(1 - 33 / 99)


@pytest.mark.parametrize("milestones", [(0,), (-1,), (1.5,), (0.0,)])
def test_milestones_are_whole_epochs_or_fractions(milestones):
    with pytest.raises(ConfigError, match="milestones"):
        StepSchedule(milestones=milestones)


@pytest.mark.parametrize("schedule", [StepSchedule, CosineSchedule, PolySchedule, OneCycleSchedule])
def test_one_step_and_beyond_the_end(schedule):
    assert schedule().factor(Progress(0, 1, 1)) > 0
    assert schedule().factor(Progress(1000, 10, 10)) >= 0


def torchs_one_cycle(total, **options):
    """The learning rates of torch's own schedule, for a peak of 1."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(()))], lr=1.0)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 1.0, total_steps=total, cycle_momentum=False, **options
    )
    rates = []
    for _ in range(total):
        rates.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    return rates


@given(
    epochs=st.integers(1, 6),
    per_epoch=st.integers(1, 12),
    pct_start=st.floats(0, 1),
    anneal_strategy=st.sampled_from(["cos", "linear"]),
    div_factor=st.floats(1, 100),
    final_div_factor=st.floats(1, 1e5),
    three_phase=st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_one_cycle_is_torchs(epochs, per_epoch, pct_start, three_phase, **options):
    options |= {"three_phase": three_phase, "pct_start": pct_start / 2 if three_phase else pct_start}
    try:
        expected = torchs_one_cycle(epochs * per_epoch, **options)
    except ZeroDivisionError:  # the rise ends at step 0
        expected = []
    found = factors(OneCycleSchedule(**options), epochs, per_epoch)
    assert found[: len(expected)] == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert all(0 < factor <= 1 + 1e-12 for factor in found)


@pytest.mark.parametrize("three_phase", [False, True])
@pytest.mark.parametrize("strategy", ["cos", "linear"])
def test_one_cycle_by_default_is_torchs(strategy, three_phase):
    found = factors(OneCycleSchedule(anneal_strategy=strategy, three_phase=three_phase))
    expected = torchs_one_cycle(100, anneal_strategy=strategy, three_phase=three_phase)
    assert found == pytest.approx(expected, rel=1e-12)
    assert max(found) == pytest.approx(1.0)
    assert found[0] == pytest.approx(1 / 25)
    assert found[-1] == pytest.approx(1 / 25e4)


def test_one_cycle_whose_rise_ends_at_the_first_step():
    assert factors(OneCycleSchedule(pct_start=0.1), epochs=1, per_epoch=10)[0] == 1.0


def test_one_cycle_cannot_fall_longer_than_the_run():
    with pytest.raises(ConfigError, match=r"pct_start should be at most 0\.5, got 0\.6"):
        OneCycleSchedule(pct_start=0.6, three_phase=True)


@pytest.mark.parametrize("schedule", [StepSchedule, CosineSchedule, PolySchedule])
def test_the_warmup_in_epochs_is_that_in_steps(schedule):
    by_epochs = schedule(warmup_epochs=1.5, warmup_steps=3)
    assert factors(by_epochs, per_epoch=8) == factors(schedule(warmup_steps=12), per_epoch=8)
    assert factors(schedule(warmup_epochs=0))[0] == 1.0


def test_flat_then_cosine():
    """RTMDet's schedule: the first half at the full rate, then half a cosine down to 5 %."""
    values = factors(CosineSchedule(begin=0.5, min_ratio=0.05, warmup_steps=0))
    assert values[:51] == [1.0] * 51
    assert values[-1] == pytest.approx(0.05, abs=1e-3)
