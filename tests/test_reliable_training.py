"""Training that can be trusted, with the detectors of several plugins: nothing to find, seeds, kills."""

import csv
import io
import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest
import torch
from detcore_train import fit
from detcore_train.bad_batch import read_bad_batch
from detcore_train.engine.module import NonFiniteLossError
from detcore_train.replaying.replay import replay
from rich.console import Console
from safetensors.torch import load_file

from detcore.config import to_yaml
from detcore.serialize import build

BACKBONE = {"type": "ResNet", "depth": 18, "base_channels": 8, "norm": "GN", "num_groups": 4}
NECK = {"type": "FPN", "out_channels": 16, "num_outs": 3, "start_level": 1}
ANCHORS = {"type": "AnchorGenerator", "ratios": [1.0], "octave_base_scale": 4, "scales_per_octave": 1}
DENSE = {"feat_channels": 16, "stacked_convs": 1}
RPN = {
    "type": "RPNHead",
    "feat_channels": 16,
    "prior_generator": {"type": "AnchorGenerator", "ratios": [1.0], "scales": [4]},
}
ROI = {
    "type": "StandardRoIHead",
    "bbox_roi_extractor": {"type": "SingleRoIExtractor", "output_size": 7, "num_levels": None},
    "bbox_head": {"type": "Shared2FCBBoxHead", "fc_out_channels": 32},
    "sampler": {"type": "RandomSampler", "num": 32, "pos_fraction": 0.25},
}
MASKS = {
    "mask_roi_extractor": {"type": "SingleRoIExtractor", "output_size": 14, "num_levels": None},
    "mask_head": {"type": "FCNMaskHead", "num_convs": 1, "conv_out_channels": 16},
}


def single_stage(head):
    return {"type": "SingleStageDetector", "backbone": BACKBONE, "neck": NECK, "head": head}


def two_stage(roi_head):
    return {
        "type": "TwoStageDetector",
        "backbone": BACKBONE,
        "neck": NECK,
        "rpn_head": RPN,
        "roi_head": roi_head,
    }


DETECTORS = {
    "RetinaNet": single_stage({"type": "RetinaHead", **DENSE, "prior_generator": ANCHORS}),
    "ATSS": single_stage({"type": "ATSSHead", **DENSE, "num_groups": 4, "prior_generator": ANCHORS}),
    "Faster R-CNN": two_stage(ROI),
    "Mask R-CNN": two_stage({**ROI, **MASKS}),
}
each_detector = pytest.mark.parametrize("detector", list(DETECTORS))


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def experiment(detector, root, **data):
    """Six small pictures, two in a batch."""
    train = {"type": "ShapesDataset", "length": 6, "size": [64, 64], "with_masks": detector == "Mask R-CNN"}
    train |= data.pop("train", {})
    return {
        "type": "Experiment",
        "model": DETECTORS[detector],
        "data": {
            "type": "DetectionData",
            "root": str(root),
            "train": train,
            "batch_size": 2,
            "workers": 0,
            **data,
        },
        "optimizer": {"type": "SGD", "lr": 0.01},
        "schedule": {"type": "StepSchedule", "warmup_steps": 2},
        "epochs": 1,
        "log_every": 1,
    }


def train(config, folder, **options):
    built = build(config, kind="experiments")
    fit(built, folder, accelerator="cpu", console=Console(file=io.StringIO()), **options)
    return built


def rows(folder):
    with (folder / "train.csv").open() as file:
        found = list(csv.DictReader(file))
    times = ("images_per_second", "waiting_for_data")
    return [{name: value for name, value in row.items() if name not in times} for row in found]


@each_detector
@pytest.mark.reliability(
    area="guards",
    fault="batches without any ground truth, a whole epoch of them",
    outcome="RetinaNet, ATSS, Faster R-CNN and Mask R-CNN train: every loss and weight is finite",
)
def test_nothing_to_find(tmp_path, detector):
    config = experiment(detector, tmp_path / "data", train={"empty": 1.0})
    built = build(config, kind="experiments")
    assert not any(len(built.data.train[i]["labels"]) for i in range(6))
    before = {name: value.clone() for name, value in built.model.state_dict().items()}
    fit(built, tmp_path / "run", accelerator="cpu", console=Console(file=io.StringIO()))
    steps = rows(tmp_path / "run")
    assert len(steps) == 3
    assert all(torch.isfinite(torch.tensor(float(v))) for row in steps for v in row.values() if v)
    after = built.model.state_dict()
    assert all(torch.isfinite(value).all() for value in after.values())
    assert any(not torch.equal(before[name], after[name]) for name in before)


@each_detector
@pytest.mark.reliability(
    area="determinism",
    fault="the same seed twice on a CPU, with 0 and with 2 reading processes",
    outcome="RetinaNet, ATSS, Faster R-CNN and Mask R-CNN (random sampling): weights and losses bit for bit the same",
)
def test_equal_seeds_equal_bits(tmp_path, detector):
    runs = {}
    for name, workers in (("a", 0), ("b", 2)):
        torch.manual_seed(len(runs))  # what happened before must not matter
        random.seed(len(runs))
        flip = [{"type": "RandomFlip", "prob": 0.5}]
        config = experiment(detector, tmp_path / "data", train={"transforms": flip}, workers=workers)
        runs[name] = train(config, tmp_path / name).model.state_dict()
    assert runs["a"].keys() == runs["b"].keys()
    assert all(torch.equal(runs["a"][name], runs["b"][name]) for name in runs["a"])
    assert rows(tmp_path / "a") == rows(tmp_path / "b")


@each_detector
@pytest.mark.reliability(
    area="guards",
    fault="the network's output overflows",
    outcome="stopped; the replay gives the same losses bit for bit and names the module and the images",
)
def test_what_stopped_is_replayed(tmp_path, detector):
    config = experiment(detector, tmp_path / "data")
    built = build(config, kind="experiments")
    with torch.no_grad():
        built.model.backbone.conv1.weight.mul_(1e38)
        built.model.backbone.conv1.weight.abs_()
    with pytest.raises(
        NonFiniteLossError, match=r"epoch 1, step 1: the loss term .*`detcore replay .*bad-batch-"
    ):
        fit(built, tmp_path / "run", accelerator="cpu", console=Console(file=io.StringIO()))
    (path,) = (tmp_path / "run").glob("bad-batch-*")
    done = replay(read_bad_batch(path))
    assert done.bad
    assert done.same
    assert done.origin.module.startswith("backbone.")
    assert all(image.bad for image in done.images)


def detcore(*words):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "detcore", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    )


def kill_after_rows(process, log, number):
    """Kills the process by SIGKILL once the log has so many lines, or lets it end."""
    while process.poll() is None:
        if log.is_file() and len(log.read_text().splitlines()) > number:
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.01)
    return process.communicate()[0]


@pytest.mark.slow
@pytest.mark.reliability(
    area="resume",
    fault="`detcore train` with Faster R-CNN and 2 reading processes killed by SIGKILL in the midst of an epoch",
    outcome="continued by --resume, the losses and the final weights equal the unbroken run's, bit for bit",
)
def test_the_command_is_killed(tmp_path, record_property):
    flip = [{"type": "RandomFlip", "prob": 0.5}]
    config = experiment(
        "Faster R-CNN", tmp_path / "data", train={"length": 16, "transforms": flip}, workers=2
    )
    config |= {"epochs": 2, "save_every": 2, "ema": {"type": "EMA", "decay": 0.9}}
    (tmp_path / "experiment.yaml").write_text(to_yaml(config))
    words = ("train", tmp_path / "experiment.yaml", "--accelerator", "cpu", "--resume", "--out")
    said = (whole := detcore(*words, tmp_path / "whole")).communicate()[0]
    assert whole.returncode == 0, said
    killed = 0
    for number in (3, 10, 99):
        process = detcore(*words, tmp_path / "broken")
        said = kill_after_rows(process, tmp_path / "broken" / "train.csv", number)
        killed += process.returncode == -signal.SIGKILL
    assert process.returncode == 0, said
    assert "continuing" in said
    assert killed == 2
    record_property("tried", killed)
    assert rows(tmp_path / "broken") == rows(tmp_path / "whole")
    for name in ("last", "best"):
        states = [load_file(tmp_path / run / name / "model.safetensors") for run in ("broken", "whole")]
        assert all(torch.equal(states[0][key], states[1][key]) for key in states[1])
    meta = json.loads((tmp_path / "broken" / "last" / "checkpoint.json").read_text())
    assert meta["step"] == 16
