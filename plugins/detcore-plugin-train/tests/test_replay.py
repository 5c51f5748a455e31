"""Batches that cannot be trained on: kept, and computed again."""

import io
import json
import math
from pathlib import Path

import pytest
import torch
from detcore_data import collate
from detcore_train import fit
from detcore_train.bad_batch import Circumstances, read_bad_batch, single, write_bad_batch
from detcore_train.engine.module import NonFiniteGradientError, NonFiniteLossError
from detcore_train.replaying.boxes import check_boxes
from detcore_train.replaying.replay import replay
from detcore_train.replaying.report import to_dict, verdict
from rich.console import Console
from torch import nn
from typer.testing import CliRunner

from detcore.errors import CheckpointError
from detcore.serialize import build
from detcore.structures import Targets


def guards(fault, outcome):
    return pytest.mark.reliability(area="guards", fault=fault, outcome=outcome)


def train(config, folder, **options):
    experiment = build(config, kind="experiments")
    fit(experiment, folder, console=Console(file=io.StringIO()), accelerator="cpu", **options)
    return experiment


def stopped(config, folder, error=NonFiniteLossError):
    """Trains until it stops; returns what was said, and the batch that was kept."""
    with pytest.raises(error) as raised:
        train(config, folder)
    (path,) = folder.glob("bad-batch-*")
    return str(raised.value), path


@pytest.fixture
def stateful(config):
    """A network whose losses depend on buffers and on random numbers."""
    config["model"]["backbone"] = {"type": "ToyBackbone", "dropout": 0.3}
    return config


@pytest.fixture
def broken_box(monkeypatch):
    """Image 103's first box is NaN, as a faulty transform may make it."""

    def break_box(batch):
        batch = collate(batch)
        for index, image_id in enumerate(batch.image_ids):
            if image_id == 103:
                batch.targets.boxes[index, 0, 2] = float("nan")
        return batch

    monkeypatch.setattr("detcore_train.loader.collate", break_box)


@guards(
    "a loss term is NaN", "stopped before the step; the kept batch gives the same losses again, bit for bit"
)
def test_the_replay_gives_the_same_losses(stateful, tmp_path):
    stateful["model"]["head"] = {"type": "ToyHead", "poison_step": 4}
    message, path = stopped(stateful, tmp_path / "run")
    assert "the loss term 'loss_box' is nan in the batch of images" in message
    assert f"`detcore replay {path}`" in message
    assert path.name == "bad-batch-00000005"
    done = replay(read_bad_batch(path))
    assert done.bad
    assert done.same
    assert math.isfinite(done.losses["loss_cls"])
    assert done.losses["loss_cls"] == done.batch.circumstances.losses["loss_cls"]
    assert (tmp_path / "run" / "experiment.yaml").read_text() == (path / "experiment.yaml").read_text()
    assert not list(tmp_path.rglob("*.ckpt.*"))


def test_the_replay_needs_the_buffers_of_before(stateful, tmp_path):
    """A network in evaluation mode computes with its statistics; a forward pass in training changes them."""
    stateful["model"]["head"] = {"type": "ToyHead", "poison_step": 4}
    experiment = build(stateful, kind="experiments")
    with pytest.raises(NonFiniteLossError):
        fit(experiment, tmp_path / "run", console=Console(file=io.StringIO()), accelerator="cpu")
    kept = read_bad_batch(next((tmp_path / "run").glob("bad-batch-*"))).detector()
    assert torch.equal(kept.backbone.stem.weight, experiment.model.backbone.stem.weight)
    assert int(kept.backbone.norm.num_batches_tracked) == 4
    assert int(experiment.model.backbone.norm.num_batches_tracked) == 5
    assert not torch.equal(kept.backbone.norm.running_mean, experiment.model.backbone.norm.running_mean)


@pytest.mark.usefixtures("broken_box")
@guards("a box is NaN", "stopped; the replay names the image and the ground truth")
def test_the_image_and_the_box_are_found(config, tmp_path):
    message, path = stopped(config, tmp_path / "run")
    assert "103 (memory/3.png)" in message
    done = replay(read_bad_batch(path))
    (bad,) = [image for image in done.images if image.bad]
    assert (bad.image_id, bad.guilty, bad.without) == (103, (0,), False)
    assert "is not finite" in bad.boxes[0]
    assert any(
        "image 103 (memory/3.png) alone does it, with ground truth 0 alone" in s for s in verdict(done)
    )


def test_the_module_is_found(config, tmp_path, monkeypatch):
    def overflow(self, pixels):
        return (self.conv(self.dropout(self.norm(self.stem(pixels * 1e38)).relu())).relu(),)

    cls = type(build(config, kind="experiments").model.backbone)
    monkeypatch.setattr(cls, "forward", overflow)
    _, path = stopped(config, tmp_path / "run")
    done = replay(read_bad_batch(path))
    assert done.origin is not None
    assert (done.origin.module, done.origin.where) == ("backbone.norm", "output")
    assert "NaN of" in done.origin.detail


@guards("a weight is NaN", "the replay names the parameter")
def test_a_bad_weight_is_found(config, tmp_path):
    experiment = build(config, kind="experiments")
    with torch.no_grad():
        experiment.model.backbone.conv.weight[0, 0, 0, 0] = float("nan")
    with pytest.raises(NonFiniteLossError):
        fit(experiment, tmp_path / "run", console=Console(file=io.StringIO()), accelerator="cpu")
    done = replay(read_bad_batch(next((tmp_path / "run").glob("bad-batch-*"))))
    assert (done.origin.module, done.origin.where) == ("backbone.conv", "parameter")
    assert "in weight (1 NaN" in str(done.origin)


class Root(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * float("nan")


@pytest.fixture
def bad_derivative(config, monkeypatch):
    cls = type(build(config, kind="experiments").model.backbone)

    def forward(self, pixels):
        return (self.conv(Root.apply(self.norm(self.stem(pixels)))).relu(),)

    monkeypatch.setattr(cls, "forward", forward)


@pytest.mark.usefixtures("bad_derivative")
@guards(
    "a gradient is NaN and the losses are finite",
    "stopped before the step; the parameters and the operation are named",
)
def test_a_bad_gradient_stops_before_the_step(config, tmp_path):
    message, path = stopped(config, tmp_path / "run", NonFiniteGradientError)
    assert "epoch 1, step 1: the losses are finite, but the gradients of 4 parameters are not" in message
    assert "'backbone.stem.weight'" in message
    kept = read_bad_batch(path)
    done = replay(kept)
    assert done.bad
    assert done.same
    assert done.gradients == kept.circumstances.gradients
    assert "head.out.weight" not in done.gradients
    assert "RootBackward" in done.derivative
    assert all(image.gradients for image in done.images)


@pytest.mark.usefixtures("bad_derivative")
def test_gradients_need_not_be_guarded(config, tmp_path):
    config |= {"guard_gradients": False, "epochs": 1}
    with pytest.raises(NonFiniteLossError, match="epoch 1, step 2"):
        train(config, tmp_path / "run")


@guards("the disk is full when the batch is to be kept", "stopped with the loss's own message, which says so")
def test_a_batch_that_cannot_be_kept(config, tmp_path, monkeypatch):
    config["model"]["head"] = {"type": "ToyHead", "poison_step": 0}

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("detcore_train.bad_batch.save", full)
    with pytest.raises(
        NonFiniteLossError, match=r"'loss_box' is nan .* could not be written .*No space left"
    ):
        train(config, tmp_path / "run")
    assert not list((tmp_path / "run").glob("*bad-batch*"))


@pytest.mark.parametrize("precision", ["32", "bf16-mixed"])
def test_mixed_precision_is_replayed_too(config, tmp_path, precision):
    config |= {"precision": precision}
    config["model"]["head"] = {"type": "ToyHead", "poison_step": 1}
    _, path = stopped(config, tmp_path / "run")
    assert replay(read_bad_batch(path)).same


def write(config, folder, batch, **circumstances):
    experiment = build(config, kind="experiments")
    about = Circumstances(reason="loss", losses={"loss_cls": 1.0, "loss_box": 2.0}, **circumstances)
    random = {"cpu": torch.get_rng_state()}
    write_bad_batch(folder, batch, about, experiment.model, random, folder / "none.yaml")
    return experiment


@pytest.fixture
def batch(config):
    experiment = build(config, kind="experiments")
    examples = [experiment.data.train[i] for i in (0, 4, 7)]
    for example in examples:
        example["masks"] = torch.zeros((len(example["labels"]), 56, 64), dtype=torch.bool)
        for mask, (x1, y1, x2, y2) in zip(example["masks"], example["boxes"].long().tolist(), strict=True):
            mask[y1:y2, x1:x2] = True
        example["masks"] = example["masks"].as_subclass(torch.Tensor)
    return collate(examples)


def test_everything_is_kept(config, tmp_path, batch):
    write(config, tmp_path / "kept", batch, epoch=2, evaluating=("backbone.norm",))
    kept = read_bad_batch(tmp_path / "kept")
    for one, two in zip(kept.batch.images, batch.images, strict=True):
        assert torch.equal(one, two)
    for name in ("boxes", "labels", "valid", "ignore"):
        assert torch.equal(getattr(kept.batch.targets, name), getattr(batch.targets, name))
    assert torch.equal(kept.batch.targets.masks.dense(), batch.targets.masks.dense())
    assert kept.batch.geometry == batch.geometry
    assert (kept.batch.image_ids, kept.batch.files) == (batch.image_ids, batch.files)
    detector = kept.detector()
    modes = {name: module.training for name, module in detector.named_modules()}
    assert not modes.pop("backbone.norm")
    assert all(modes.values())
    assert not [p for p in tmp_path.rglob("*") if p.suffix in (".pt", ".pkl", ".ckpt")]


def test_a_single_image_keeps_its_masks(batch):
    alone = single(batch, 2)
    assert torch.equal(alone.targets.masks.dense(), batch.targets.masks.dense()[2:])
    none = single(batch, 2, torch.zeros(1, dtype=torch.bool))
    assert not none.targets.valid.any()


def test_finite_again(config, tmp_path, batch):
    write(config, tmp_path / "kept", batch)
    done = replay(read_bad_batch(tmp_path / "kept"))
    assert not done.bad
    assert not done.same
    assert done.origin is None
    assert verdict(done)[0].startswith("finite: here")
    assert json.loads(json.dumps(to_dict(done)))["finite"] is True


@pytest.mark.parametrize("file", ["batch.json", "batch.safetensors"])
def test_damaged_files_are_named(config, tmp_path, batch, file):
    write(config, tmp_path / "kept", batch)
    (tmp_path / "kept" / file).write_bytes((tmp_path / "kept" / file).read_bytes()[:40])
    with pytest.raises(CheckpointError, match=rf"{file}: damaged"):
        read_bad_batch(tmp_path / "kept")


def test_another_folder_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"no batch\.json in it; give the folder bad-batch-STEP"):
        read_bad_batch(tmp_path)


def boxes(*rows, label=0):
    targets = Targets.stack([{"boxes": torch.tensor(rows), "labels": torch.full((len(rows),), label)}])
    example = {"images": (torch.zeros((3, 20, 30), dtype=torch.uint8),), "targets": targets}
    return type("Batch", (), example)()


@pytest.mark.parametrize(
    ("box", "text"),
    [
        ([1.0, 1, 5, float("inf")], "is not finite"),
        ([5.0, 1, 5, 4], "has no extent"),
        ([5.0, 6, 9, 4], "has no extent"),
        ([40.0, 1, 50, 4], "lies outside its image of 30 x 20 pixels"),
        ([10.0, 1, 50, 4], "reaches out of its image"),
        ([10.0, 1, 10.5, 4], "less than a pixel"),
    ],
)
@guards(
    "a box without extent, outside its image or not finite",
    "the replay names the ground truth and what is wrong",
)
def test_odd_boxes(box, text):
    found = check_boxes(boxes([1.0, 1, 9, 9], box), 0, 3)
    assert set(found) == {1}
    assert text in found[1]


def test_odd_labels():
    assert check_boxes(boxes([1.0, 1, 9, 9], label=7), 0, 3) == {0: "label 7, but there are 3 classes"}


def test_the_command(config, tmp_path):
    import typer
    from detcore_train.hooks import detcore_add_commands

    config["model"]["head"] = {"type": "ToyHead", "poison_step": 1}
    _, path = stopped(config, tmp_path / "run")
    app = typer.Typer()
    detcore_add_commands(app)
    done = CliRunner().invoke(app, ["replay", str(path), "--out", str(tmp_path / "seen")])
    assert done.exit_code == 1
    assert "not finite again, bit for bit as in training" in done.stdout
    assert len(list((tmp_path / "seen").glob("*.png"))) == 4
    told = json.loads((tmp_path / "seen" / "replay.json").read_text())
    assert told["losses"]["loss_box"] == "nan"
    assert told["same_as_in_training"] is True
    done = CliRunner().invoke(app, ["replay", str(path), "--json"])
    assert done.exit_code == 1
    assert json.loads(done.stdout)["batch"] == str(path)
    assert Path(path / "replay" / "replay.json").is_file()


def test_the_command_with_finite_losses(config, tmp_path, batch):
    import typer
    from detcore_train.hooks import detcore_add_commands

    write(config, tmp_path / "kept", batch, processes=2)
    app = typer.Typer()
    detcore_add_commands(app)
    done = CliRunner().invoke(app, ["replay", str(tmp_path / "kept")])
    assert done.exit_code == 0, done.stdout
    assert "met by one of 2 processes" in done.stdout


def test_a_block_that_is_in_evaluation_mode_stays_so(config, tmp_path):
    experiment = build(config, kind="experiments")
    experiment.model.backbone.norm.eval()
    experiment.model.head.poison_step = 0
    with pytest.raises(NonFiniteLossError):
        fit(experiment, tmp_path / "run", console=Console(file=io.StringIO()), accelerator="cpu")
    kept = read_bad_batch(next((tmp_path / "run").glob("bad-batch-*")))
    assert kept.circumstances.evaluating == ("backbone.norm",)
    detector = kept.detector()
    assert not detector.backbone.norm.training
    assert isinstance(detector.backbone.norm, nn.BatchNorm2d)
