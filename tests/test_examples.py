"""Every example is run, or at least validated; so are the YAML blocks of the plugins' READMEs."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from detcore_data import seeded

from detcore import build, config
from detcore.serialize import as_spec

ROOT = Path(__file__).parents[1]
PROGRAMS = {"compose.py": ["--steps", "120"], "faster_rcnn_compose.py": ["--steps", "80"]}
DATA = ROOT.parent / "shared" / "data"
EXPERIMENTS = {
    "bccd_mosaic_retinanet.yaml": "bccd",
    "bccd_retinanet.yaml": "bccd",
    "kitti_tiny_retinanet.yaml": "kitti_tiny",
    "kitti_tiny_faster_rcnn.yaml": "kitti_tiny",
    "nuts_mask_rcnn.yaml": "nuts",
}
READMES = sorted((ROOT / "plugins").glob("*/README.md"))


def test_every_program_is_run():
    assert {path.name for path in (ROOT / "examples").glob("*.py")} == set(PROGRAMS)


@pytest.mark.parametrize("name", PROGRAMS)
def test_compose_learns(tmp_path, name):
    command = [sys.executable, str(ROOT / "examples" / name), *PROGRAMS[name]]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=tmp_path, check=False)
    assert result.returncode == 0, result.stderr
    found = re.search(r"found (\d+)% of the boxes in unseen pictures", result.stdout.splitlines()[-1])
    assert int(found[1]) >= 60
    assert list(tmp_path.iterdir()) == []


def test_every_experiment_is_run():
    assert {path.name for path in (ROOT / "examples").glob("*.yaml")} == set(EXPERIMENTS)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_experiments_validate(name):
    as_spec(config.load(ROOT / "examples" / name).data)


def test_mosaics_are_read():
    """The example with Mosaic and MixUp as it stands."""
    if not (DATA / "bccd").is_dir():
        pytest.skip(f"no folder {DATA / 'bccd'}")
    found = config.load(ROOT / "examples" / "bccd_mosaic_retinanet.yaml", [f"data.root={DATA / 'bccd'}"])
    items = [seeded(build(found.data["data"]).train, 0)[i] for i in range(4)]
    assert {tuple(item["image"].shape[-2:]) for item in items} == {(240, 320)}
    assert max(len(item["boxes"]) for item in items) > 20


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_experiments_train_on_real_data(tmp_path, name):
    data = DATA / EXPERIMENTS[name]
    if not data.is_dir():
        pytest.skip(f"no folder {data}")
    transforms = "[{type: Resize, scale: [96, 64]}]"
    command = [
        str(Path(sys.executable).with_name("detcore")), "train", str(ROOT / "examples" / name),
        f"data.root={data}", f"data.train.transforms={transforms}", f"data.val.transforms={transforms}",
        "data.batch_size=16", "data.workers=0", "data.final_transforms=null", "data.final_epochs=0",
        "epochs=1", "--out", "run",
    ]  # fmt: skip
    result = subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=tmp_path, check=False)
    assert result.returncode == 0, result.stderr
    assert re.search(r"^AP (n/a|0\.\d+)  AP50 ", result.stdout.splitlines()[-1])


@pytest.mark.parametrize("path", READMES, ids=lambda path: path.parent.name)
def test_yaml_of_the_plugins_readmes_validates(path, tmp_path):
    for text in re.findall(
        r"^```yaml\n(.*?)^```", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    ):
        file = tmp_path / "block.yaml"
        file.write_text(text)
        data = config.load(file).data
        if "type" in data:
            as_spec(data)
