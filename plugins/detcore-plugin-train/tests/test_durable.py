"""Checkpoints: complete or not there, and never used when a bit of them was changed."""

import io
import os
import random
import resource
import shutil

import pytest
from detcore_train import durable, fit
from detcore_train.durable import new_folder, seal, unseal
from detcore_train.engine.logbook import CsvLog
from detcore_train.runfolder import Checkpoint, RunFolder, detector_folder
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

from detcore.errors import CheckpointError
from detcore.serialize import build

FAST = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    derandomize=True,
)


def resume(fault, outcome):
    return pytest.mark.reliability(area="resume", fault=fault, outcome=outcome)


def train(config, folder, **options):
    console = Console(file=io.StringIO(), width=200)
    fit(build(config, kind="experiments"), folder, accelerator="cpu", console=console, **options)
    return console.file.getvalue()


@pytest.fixture
def run(config, tmp_path):
    """A run of two epochs: ``last`` after 6 steps, and one after 3."""
    config["data"]["val"]["length"] = 2
    train(config, tmp_path / "run")
    return RunFolder(tmp_path / "run")


def damage(file, how, place):
    """Cuts a file off, or turns one bit of it over, somewhere."""
    raw = bytearray(file.read_bytes())
    at = int(place * len(raw))
    if how == "cut":
        del raw[at:]
    else:
        raw[at] ^= 1 << random.Random(at).randrange(8)
    file.write_bytes(bytes(raw))


def chosen(folder):
    said = []
    found = folder.resumable(said.append)
    return found, said


@resume(
    "any file of the newest checkpoint truncated, or one bit of it changed, at any place",
    "noticed and named; the checkpoint before it is used",
)
def test_any_damage_is_noticed(run, record_property):
    files = sorted(file.name for file in run.last.iterdir())
    assert {"checkpoint.json", "training.ckpt", "model.safetensors", "config.yaml", "classes.json"} <= set(
        files
    )
    number = 0

    @FAST
    @given(st.sampled_from(files), st.sampled_from(["cut", "flip"]), st.floats(0, 1, exclude_max=True))
    def check(name, how, place):
        nonlocal number
        number += 1
        file = run.last / name
        before = file.read_bytes()
        try:
            damage(file, how, place)
            found, said = chosen(run)
        finally:
            file.write_bytes(before)
        assert found.path.name == "step-00000003"
        assert said == [
            f"{run.last} is damaged ({name} is truncated or was changed); trying the one before it"
        ]

    check()
    record_property("tried", number)
    found, said = chosen(run)
    assert (found.path, said) == (run.last, [])


@pytest.mark.parametrize("name", ["training.ckpt", "model.safetensors", "checkpoint.json"])
@resume("a file of the newest checkpoint is missing", "named; the checkpoint before it is used")
def test_missing_files_are_noticed(run, name):
    (run.last / name).unlink()
    found, said = chosen(run)
    assert found.path.name == "step-00000003"
    assert f"({name} is missing)" in said[0]


@pytest.mark.parametrize("how", ["cut", "flip"])
@pytest.mark.parametrize("name", ["checkpoint.json", "training.ckpt"])
def test_training_goes_on_from_the_one_before(config, run, name, how):
    whole = (run.path / "train.csv").read_text()
    damage(run.last / name, how, 0.5)
    said = train(config, run.path, resume=True)
    assert f"{name} is truncated or was changed); trying the one before it" in said
    assert "after 3 steps" in said
    assert (run.path / "damaged-last" / name).is_file()
    assert Checkpoint.read(run.last).step == 6
    assert not Checkpoint.read(run.last).damage()
    again = (run.path / "train.csv").read_text()
    assert [row.split(",")[:5] for row in again.splitlines()] == [
        row.split(",")[:5] for row in whole.splitlines()
    ]


@pytest.mark.parametrize("how", ["cut", "flip"])
@pytest.mark.reliability(
    area="evaluation",
    fault="the weights of a checkpoint are truncated, or one bit of them is changed",
    outcome="an error that names the file; nothing is evaluated",
)
def test_damaged_weights_are_not_evaluated(run, how):
    assert detector_folder(run.path) == run.best
    damage(run.best / "model.safetensors", how, 0.9)
    for path in (run.path, run.best):
        with pytest.raises(CheckpointError, match=r"best/model\.safetensors is truncated or was changed"):
            detector_folder(path)
    assert detector_folder(run.last) == run.last


@resume("every checkpoint is damaged", "an error that says so; nothing is trained")
def test_nothing_is_left(config, run):
    for checkpoint in run.checkpoints():
        damage(checkpoint.path / "checkpoint.json", "flip", 0.1)
    with pytest.raises(CheckpointError, match="every checkpoint is damaged; start again with another --out"):
        train(config, run.path, resume=True)


@pytest.fixture
def small_files():
    """Files may not grow beyond a size, as where the disk is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(size):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))

    yield limit
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@resume(
    "the disk is full while a checkpoint is written",
    "an error that names the folder and the remedy; the checkpoint before it is intact, and resumed later",
)
def test_a_full_disk(config, run, small_files):
    config["epochs"] = 3
    small_files((run.last / "training.ckpt").stat().st_size // 2)
    with pytest.raises(CheckpointError) as raised:
        train(config, run.path, resume=True)
    small_files(resource.RLIM_INFINITY)
    message = str(raised.value)
    assert f"{run.path}: the checkpoint after 9 steps could not be written (File too large)" in message
    assert "after 6 steps, is intact: make room, and continue with the same command and --resume" in message
    assert not list(run.path.glob(".writing*"))
    found, said = chosen(run)
    assert (found.path, found.step, said) == (run.last, 6, [])
    assert "after 6 steps" in train(config, run.path, resume=True)
    assert Checkpoint.read(run.last).step == 9


def test_a_full_disk_before_the_first_checkpoint(config, tmp_path, small_files):
    small_files(20_000)
    with pytest.raises(CheckpointError, match="There is none before it: make room, and start again"):
        train(config, tmp_path / "run")


def test_checkpoints_within_an_epoch(config, tmp_path):
    config |= {"save_every": 2, "keep_last": 9, "epochs": 2}
    train(config, tmp_path / "run")
    steps = [(c.step, c.epoch) for c in RunFolder(tmp_path / "run").checkpoints()]
    assert steps == [(6, 2), (4, 1), (3, 1), (2, 0)]


def test_checkpoints_within_an_epoch_come_between_optimizer_steps(config, tmp_path):
    config["data"]["batch_size"] = 1
    config |= {"save_every": 2, "keep_last": 9, "epochs": 1, "accumulate": 3}
    train(config, tmp_path / "run")
    assert [c.step for c in RunFolder(tmp_path / "run").checkpoints()] == [4, 2]


def test_files_are_on_the_disk_before_they_have_their_name(run, monkeypatch):
    """Every file of a checkpoint, and its folder, are synchronised before the folder is renamed."""
    seen, renamed = [], []
    monkeypatch.setattr(durable, "sync", lambda path: seen.append(path.name))
    original = os.replace
    monkeypatch.setattr(os, "replace", lambda a, b: (renamed.append((a, list(seen))), original(a, b)))
    with run.writing(3, 9, {}, 2) as path:
        (path / "training.ckpt").write_text("state")
    (_, before), *_ = [(a, s) for a, s in renamed if a.name.startswith(".writing")]
    assert {"training.ckpt", "checkpoint.json", "experiment.yaml"} <= set(before)
    assert before[-1].startswith(".writing")


def write_again(run):
    with run.writing(3, 9, {"AP": 1.0}, 2, best=True) as path:
        shutil.copytree(run.last, path, dirs_exist_ok=True)
        (path / "checkpoint.json").unlink()


def interrupted(run, number, monkeypatch):
    """Ends a promotion before its ``number``-th renaming, as a killed process does."""
    original, count = os.replace, 0

    def replace(*paths):
        nonlocal count
        count += 1
        if count == number:
            raise KeyboardInterrupt
        return original(*paths)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace)
        with pytest.raises(KeyboardInterrupt):
            write_again(run)


@pytest.mark.parametrize(("number", "step"), [(1, 6), (2, 6), (3, 9), (4, 9)])
@resume(
    "killed between any two renamings of a new best checkpoint",
    "there is always a best checkpoint after recovery, and it is the resumed run's",
)
def test_the_best_is_never_lost(run, monkeypatch, number, step):
    interrupted(run, number, monkeypatch)
    (run.path / ".writing-1").mkdir()
    (run.path / ".experiment.yaml.17").write_text("type:")
    found, said = chosen(run)
    assert (found.step, said) == (step, [])
    run.recover(found, keep=2)
    best = Checkpoint.read(run.best)
    assert not best.damage() or "training.ckpt" in best.damage()
    assert best.step == 9 if step == 9 else best.step <= 6
    assert not list(run.path.glob(".*"))


def test_a_checkpoint_too_many_goes_with_the_next_start(run, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "_prune", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            write_again(run)
    before = len(run.checkpoints())
    run.recover(chosen(run)[0], keep=before - 1)
    assert len(run.checkpoints()) == before - 1


def test_a_folder_is_replaced_whole(tmp_path):
    for text in ("one", "two"):
        with new_folder(tmp_path / "a") as folder:
            (folder / "file").write_text(text)
    assert [(p.name, p.read_text()) for p in (tmp_path / "a").iterdir()] == [("file", "two")]
    with pytest.raises(FileNotFoundError), new_folder(tmp_path / "a") as folder:
        shutil.copy(tmp_path / "none", folder / "file")
    assert (tmp_path / "a" / "file").read_text() == "two"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


VALUES = st.integers() | st.floats(allow_nan=False) | st.text(max_size=3)


@given(st.dictionaries(st.text(max_size=3), VALUES, min_size=1))
@settings(max_examples=30, deadline=None)
def test_sealed_data_comes_back(data):
    assert unseal(seal(data).encode()) == data


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_any_change_of_sealed_data_is_noticed(data):
    raw = bytearray(seal({"step": 3, "values": {"AP": 0.25}}).encode())
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] ^= 1 << data.draw(st.integers(0, 7))
    assert unseal(bytes(raw)) is None
    assert unseal(bytes(raw[:at])) is None


@pytest.mark.parametrize("torn", ["epoch,step,los", "3,", "1,1", "1,3,0.5", "1,2,0.5,0.1\n", "x,y,z\n"])
@resume("killed while a line of the log was written", "the torn line is dropped; no step is logged twice")
def test_a_torn_line_of_a_log(tmp_path, torn):
    log = CsvLog(tmp_path / "train.csv")
    for step in (1, 2):
        log.add({"epoch": 1, "step": step, "loss": 1 / 3})
    with (tmp_path / "train.csv").open("a") as file:
        file.write(torn)
    again = CsvLog(tmp_path / "train.csv", after_step=9)
    again.add({"epoch": 1, "step": 3, "loss": 0.5})
    assert (tmp_path / "train.csv").read_text().split() == [
        "epoch,step,loss",
        "1,1,0.333333333",
        "1,2,0.333333333",
        "1,3,0.5",
    ]
