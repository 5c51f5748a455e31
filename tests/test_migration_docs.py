"""What the pages on migration show is run."""

import re
import shlex
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from detcore.cli.app import app
from detcore.config import parse_yaml

pytest.importorskip("detcore_mmdet")
pytest.importorskip("detcore_torchvision")

DOCS = Path(__file__).parents[1] / "docs"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def run(page, folder):
    """Runs a page's blocks in order: Python, files of Python, and the commands of detcore."""
    scope = {}
    for language, text in BLOCK.findall((DOCS / page).read_text()):
        file = re.match(r"# (\S+\.py)\n", text)
        if language == "python" and file:
            (folder / file[1]).write_text(text)
        elif language == "python":
            exec(compile(text, page, "exec"), scope)
        elif language == "console":
            commands = [line.removeprefix("$ detcore ") for line in text.splitlines() if "$ detcore " in line]
            for command in commands:
                result = CliRunner().invoke(app, shlex.split(command))
                assert result.exit_code == 0, result.output
        elif language == "yaml":
            assert {"weights", "reinit"} <= parse_yaml(text, page).data.keys()
    return scope


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield tmp_path
    torch.set_num_threads(before)


def test_from_torchvision(folder):
    scope = run("migrate-from-torchvision.md", folder)
    assert len(scope["report"].reinitialised) == 4


def test_from_mmdetection(folder):
    from detcore_mmdet import from_mmdet

    text = (DOCS / "migrate-from-mmdetection.md").read_text()
    config = next(body for _, body in BLOCK.findall(text) if body.startswith("# retinanet.py"))
    values = {}
    exec(config, values)
    state = from_mmdet(values["model"], None).state_dict()
    torch.save({re.sub(r"^head\.", "bbox_head.", n): t for n, t in state.items()}, folder / "retinanet.pth")
    scope = run("migrate-from-mmdetection.md", folder)
    want = state["neck.lateral_convs.0.conv.weight"]
    assert torch.equal(scope["same"].state_dict()["neck.lateral_convs.0.conv.weight"], want)
