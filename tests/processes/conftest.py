"""A small data set in files, small detectors, and what starts processes."""

from __future__ import annotations

import copy
import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

RUN_WORLDS = Path(__file__).with_name("run_worlds.py")
#: What a launcher would set.
LAUNCHER = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT")
#: Four images of each step are shared by the processes. In the second step, those of the last process have no
#: objects; in the third, no image has; the last step has three images.
EMPTY = {6, 7, 8, 9, 10, 11}
IMAGES = 15
SIZE = 64


def write_coco(root: Path) -> None:
    """Fifteen pictures of one or two rectangles, two classes, and masks that are triangles."""
    (root / "images").mkdir(parents=True)
    images, annotations = [], []
    for index in range(IMAGES):
        random = np.random.default_rng(index)
        pixels = random.integers(0, 60, (SIZE, SIZE, 3), dtype=np.uint8)
        for _ in range(0 if index in EMPTY else 1 + index % 2):
            x, y = random.integers(2, 24, 2).tolist()
            w, h = random.integers(20, 36, 2).tolist()
            label = int(random.integers(2))
            pixels[y : y + h, x : x + w, label] = 220
            annotations.append(
                {"id": len(annotations) + 1, "image_id": index, "category_id": label + 1, "bbox": [x, y, w, h],
                 "area": w * h, "iscrowd": 0, "segmentation": [[x, y, x + w, y, x, y + h]]}
            )  # fmt: skip
        Image.fromarray(pixels).save(root / "images" / f"{index}.png")
        images.append({"id": index, "file_name": f"{index}.png", "width": SIZE, "height": SIZE})
    categories = [{"id": 1, "name": "red"}, {"id": 2, "name": "green"}]
    for name, count in (("train", IMAGES), ("seven", 7), ("one", 1)):
        chosen = images[:count]
        objects = [a for a in annotations if a["image_id"] < count]
        content = {"images": chosen, "annotations": objects, "categories": categories}
        (root / f"{name}.json").write_text(json.dumps(content))


@pytest.fixture(scope="session")
def coco(tmp_path_factory):
    root = tmp_path_factory.mktemp("coco")
    write_coco(root)
    return root


def _backbone() -> dict:
    return {"type": "ResNet", "depth": 18, "base_channels": 8, "norm_eval": True}


def _neck(start: int, outs: int) -> dict:
    return {
        "type": "FPN",
        "out_channels": 16,
        "start_level": start,
        "num_outs": outs,
        "add_extra_convs": False,
    }


@pytest.fixture(scope="session")
def retinanet():
    """A small one-stage detector."""
    detections = {"type": "NMSPostprocess", "score_thr": 0.0, "nms_pre": 50, "max_per_img": 20}
    head = {"type": "RetinaHead", "feat_channels": 16, "stacked_convs": 1, "postprocess": detections}
    return {"type": "SingleStageDetector", "backbone": _backbone(), "neck": _neck(1, 4), "head": head}


@pytest.fixture(scope="session")
def faster_rcnn():
    """A small two-stage detector, whose samplers leave regions out at random."""
    return _two_stages({})


@pytest.fixture(scope="session")
def mask_rcnn():
    """The same with masks."""
    return _two_stages({"mask_head": {"type": "FCNMaskHead", "num_convs": 1, "conv_out_channels": 16}})


def _two_stages(more: dict) -> dict:
    sampler = {"type": "RandomSampler", "num": 32, "pos_fraction": 0.5}
    roi_head = {
        "type": "StandardRoIHead",
        "bbox_head": {"type": "Shared2FCBBoxHead", "fc_out_channels": 32},
        "sampler": sampler,
        **more,
    }
    return {
        "type": "TwoStageDetector",
        "backbone": _backbone(),
        "neck": _neck(0, 5),
        "rpn_head": {"type": "RPNHead", "feat_channels": 16, "sampler": sampler},
        "roi_head": roi_head,
    }


@pytest.fixture(scope="session")
def experiment(coco):
    """``experiment(model, processes, **changes)``: four images per step, however many processes there are."""

    def make(
        model: dict, processes: int, val: str | None = None, workers: int = 0, **changes: object
    ) -> dict:
        masks = "mask_head" in model.get("roi_head", {})
        dataset = {"type": "CocoDataset", "images": "images", "with_masks": masks}
        data = {
            "type": "DetectionData",
            "root": str(coco),
            "train": {**dataset, "annotations": "train.json"},
            "batch_size": 4 // processes,
            "val_batch_size": 2,
            "workers": workers,
            "shuffle": False,
        }
        if val is not None:
            data["val"] = {**dataset, "annotations": f"{val}.json"}
        return copy.deepcopy(
            {
                "type": "Experiment",
                "model": model,
                "data": data,
                "optimizer": {"type": "SGD", "lr": 0.01},
                "schedule": {"type": "StepSchedule", "warmup_steps": 2},
                "epochs": 2,
                "log_every": 1,
                **changes,
            }
        )

    return make


def clean_environment(**more: str) -> dict[str, str]:
    """The environment without what a launcher around the tests may have set; one thread per process."""
    kept = {
        k: v
        for k, v in os.environ.items()
        if k not in LAUNCHER and not k.startswith(("TORCHELASTIC", "SLURM"))
    }
    return {**kept, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "COLUMNS": "200", **more}


@pytest.fixture(scope="session")
def environment():
    return clean_environment


@pytest.fixture(scope="session")
def play():
    """``play(folder, worlds)``: what became of each world."""

    def run(folder: Path, worlds: dict) -> dict[str, World]:
        (folder / "worlds.json").write_text(json.dumps(worlds))
        done = subprocess.run(
            [sys.executable, RUN_WORLDS, folder / "worlds.json"],
            capture_output=True, text=True, timeout=580, env=clean_environment(), check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return {name: World(folder / "worlds" / name, world) for name, world in worlds.items()}

    return run


class World:
    """What became of some processes that trained together."""

    def __init__(self, folder: Path, world: dict) -> None:
        result = json.loads((folder / "result.json").read_text())
        self.codes, self.seconds = result["codes"], result["seconds"]
        self.output = [(folder / f"output{rank}.txt").read_text() for rank in range(world["processes"])]
        self.runs = [Run(Path(run["out"])) for run in world["runs"]]
        self.processes = world["processes"]

    def check(self) -> World:
        assert self.codes == [0] * self.processes, "\n".join(self.output)
        return self


class Run:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def rows(self, name: str = "train") -> list[dict[str, str]]:
        with (self.folder / f"{name}.csv").open() as file:
            return list(csv.DictReader(file))

    def told(self) -> list[dict[str, str]]:
        """What each process says of its weights in the end."""
        return [json.loads(path.read_text()) for path in sorted(self.folder.glob("process*.json"))]
