import io
import os
import shutil
import signal

import pytest
import torch
from detcore_train import fit
from detcore_train.engine.checkpointing import TrainingInterrupted
from detcore_train.engine.module import TrainingModule
from rich.console import Console

from detcore.errors import CheckpointError, ConfigError
from detcore.serialize import build


def run(config, folder, **options):
    console = Console(file=io.StringIO(), width=200)
    experiment = build(config, kind="experiments")
    try:
        return fit(experiment, folder, accelerator="cpu", console=console, **options), experiment, console
    finally:
        print(console.file.getvalue())  # noqa: T201 - seen where a test fails


def stop_at(monkeypatch, batch, number=signal.SIGINT):
    """Sends a signal in the midst of the given batch."""
    original = TrainingModule.training_step

    def training_step(self, *args):
        if self.batches_done == batch:
            os.kill(os.getpid(), number)
        return original(self, *args)

    monkeypatch.setattr(TrainingModule, "training_step", training_step)


@pytest.fixture
def hard(config):
    """Everything with a state: momentum, dropout, augmentation, batch statistics, an average."""
    config["model"]["backbone"] = {"type": "ToyBackbone", "dropout": 0.2}
    config["ema"] = {"type": "EMA", "decay": 0.9, "ramp_steps": 3}
    config["epochs"] = 3
    return config


def assert_same(state, other):
    assert state.keys() == other.keys()
    for name in state:
        assert torch.equal(state[name], other[name]), name


@pytest.fixture
def unbroken(hard, tmp_path):
    _, experiment, _ = run(hard, tmp_path / "unbroken")
    return experiment


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("batch", [0, 1, 2, 3, 5, 7])
def test_interrupted_and_resumed_equals_unbroken(hard, unbroken, tmp_path, monkeypatch, batch, workers):
    hard["data"]["workers"] = workers
    with monkeypatch.context() as patch:
        stop_at(patch, batch)
        with pytest.raises(TrainingInterrupted, match=r"stopped by SIGINT .* saved to .*last.* --resume"):
            run(hard, tmp_path / "broken")
    _, experiment, _ = run(hard, tmp_path / "broken", resume=True)
    assert_same(experiment.model.state_dict(), unbroken.model.state_dict())
    assert_same(dict(experiment.ema.weights()), dict(unbroken.ema.weights()))
    for name in ("train.csv", "val.csv"):
        broken, whole = ((tmp_path / run / name).read_text().splitlines() for run in ("broken", "unbroken"))
        timeless = slice(0, None) if name == "val.csv" else slice(0, -2)
        assert [row.split(",")[timeless] for row in broken] == [row.split(",")[timeless] for row in whole]


def test_interrupted_twice(hard, unbroken, tmp_path, monkeypatch):
    for batch, resume in ((1, False), (4, True), (5, True)):
        with monkeypatch.context() as patch:
            stop_at(patch, batch)
            with pytest.raises(TrainingInterrupted):
                run(hard, tmp_path / "broken", resume=resume)
    _, experiment, _ = run(hard, tmp_path / "broken", resume=True)
    assert_same(experiment.model.state_dict(), unbroken.model.state_dict())


def test_sigterm_saves_too(hard, tmp_path, monkeypatch):
    stop_at(monkeypatch, 1, signal.SIGTERM)
    with pytest.raises(TrainingInterrupted, match="SIGTERM"):
        run(hard, tmp_path / "run")
    assert (tmp_path / "run" / "last" / "training.ckpt").is_file()


@pytest.mark.parametrize("batch", [0, 1])
def test_accumulation_resumes_within_an_epoch(hard, tmp_path, monkeypatch, batch):
    hard["accumulate"] = 2
    _, whole, _ = run(hard, tmp_path / "unbroken")
    with monkeypatch.context() as patch:
        stop_at(patch, batch)
        with pytest.raises(TrainingInterrupted, match="after 1 steps"):
            run(hard, tmp_path / "broken")
    _, experiment, _ = run(hard, tmp_path / "broken", resume=True)
    assert_same(experiment.model.state_dict(), whole.model.state_dict())


def test_more_epochs_continue_a_finished_run(config, tmp_path):
    run(config, tmp_path / "run")
    config["epochs"] = 3
    _, _, console = run(config, tmp_path / "run", resume=True)
    assert "continuing" in console.file.getvalue()
    assert len((tmp_path / "run" / "val.csv").read_text().splitlines()) == 1 + 3


def test_a_finished_run_has_nothing_to_resume(config, tmp_path):
    _, first, _ = run(config, tmp_path / "run")
    result, again, _ = run(config, tmp_path / "run", resume=True)
    assert result.values["AP"] is not None
    assert_same(again.model.state_dict(), first.model.state_dict())


def test_resume_without_a_run_begins_one(config, tmp_path):
    result, _, _ = run(config, tmp_path / "new", resume=True)
    assert (result.run / "last").is_dir()


def test_logs_begin_anew_where_there_is_no_checkpoint_yet(config, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run(config, tmp_path / "run")
    for checkpoint in ("last", "best", "step-00000003"):
        shutil.rmtree(tmp_path / "run" / checkpoint)
    run(config, tmp_path / "run", resume=True)
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("train/loss")] == [1, 2, 3, 4, 5, 6]


def test_a_run_is_not_overwritten(config, tmp_path):
    run(config, tmp_path / "run")
    with pytest.raises(ConfigError, match=r"already holds a training run; continue it with --resume"):
        run(config, tmp_path / "run")


def test_another_model_is_refused(config, tmp_path):
    run(config, tmp_path / "run")
    config["model"]["backbone"] = {"type": "ToyBackbone", "channels": 8}
    with pytest.raises(ConfigError, match="trained with another model"):
        run(config, tmp_path / "run", resume=True)


def test_a_truncated_checkpoint_is_passed_over(config, tmp_path):
    _, first, _ = run(config, tmp_path / "run")
    state = tmp_path / "run" / "last" / "training.ckpt"
    state.write_bytes(state.read_bytes()[:1000])
    _, again, console = run(config, tmp_path / "run", resume=True)
    assert "training.ckpt is truncated or was changed" in console.file.getvalue()
    assert "after 3 steps" in console.file.getvalue()
    assert_same(again.model.state_dict(), first.model.state_dict())


def test_all_checkpoints_damaged(config, tmp_path):
    run(config, tmp_path / "run")
    for state in (tmp_path / "run").glob("*/training.ckpt"):
        state.unlink()
        (state.parent / "model.safetensors").unlink()
        state.write_bytes(b"")
    with pytest.raises(CheckpointError, match="every checkpoint is damaged"):
        run(config, tmp_path / "run", resume=True)
