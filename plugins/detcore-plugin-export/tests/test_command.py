"""``detcore export``."""

from __future__ import annotations

from pathlib import Path

import pytest
from detcore_export import command
from detcore_export.exporting import Exported
from detcore_export.verification import Comparison
from PIL import Image
from typer.testing import CliRunner

from detcore.cli.app import app
from detcore.errors import CheckpointError, ConfigError, DataError


@pytest.fixture
def checkpoint(tmp_path, make_detector, monkeypatch):
    """A run whose best checkpoint stands for the test's detector, whose classes are not registered."""
    (tmp_path / "run" / "best").mkdir(parents=True)
    (tmp_path / "run" / "best" / "model.safetensors").touch()
    seen = []
    monkeypatch.setattr(command.detcore, "load", lambda path: seen.append(path) or make_detector())
    return tmp_path / "run", seen


@pytest.mark.slow
def test_exports_and_tells_what_was_checked(checkpoint, tmp_path):
    run, seen = checkpoint
    for name in ("a", "b"):
        Image.effect_noise((64, 48), 90).save(tmp_path / f"{name}.png")
    result = CliRunner().invoke(
        app,
        [
            "export",
            str(run),
            "--format",
            "torch-export",
            "--batch",
            "1",
            "--size",
            "48x64",
            "--images",
            str(tmp_path),
        ],
        catch_exceptions=False,
    )
    assert seen == [run / "best"]
    assert "checked on 1 x 48x64, 1 x 48x64, 1 x 48x64: 60 detections" in result.output
    assert "largest differences: boxes 0, scores 0" in result.output
    assert (tmp_path / "run.pt2").is_file()


def test_says_when_nothing_was_compared():
    done = Exported(
        Path("a.onnx"), "onnx", (2, 2), (Comparison(1, (8, 8), 0, {"boxes": 0.0, "scores": 0.0}),)
    )
    assert command.report(done)[-1].startswith(
        "warning: the detector found nothing in these made-up pictures"
    )
    assert command.report(Exported(Path("a.onnx"), "onnx", (2, 2), ()))[-1] == "not checked"


@pytest.mark.parametrize("text", ["800", "800x", "0x5", "axb"])
def test_sizes(text):
    with pytest.raises(ConfigError, match=rf"--size should be 'dynamic' or HEIGHTxWIDTH .* got '{text}'"):
        command.parse_size(text)


def test_arguments(tmp_path):
    assert command.parse_size("800x1333") == (800, 1333)
    assert command.parse_batch("4") == 4
    with pytest.raises(ConfigError, match="--batch should be 'dynamic' or a number of images, got 'many'"):
        command.parse_batch("many")
    with pytest.raises(CheckpointError, match="neither a checkpoint nor a run with one"):
        command.find_checkpoint(tmp_path)
    with pytest.raises(DataError, match="no image"):
        command.read_images(tmp_path)
    (tmp_path / "a.png").write_bytes(b"nonsense")
    with pytest.raises(DataError, match=r"a\.png: cannot be read as an image"):
        command.read_images(tmp_path)
