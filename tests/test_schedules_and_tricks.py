"""The experiment of docs/schedules-and-tricks.md, with each of its pieces."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import pytest
from rich.console import Console

from detcore.config import parse_yaml
from detcore.serialize import build, dump

PAGE = Path(__file__).parents[1] / "docs" / "schedules-and-tricks.md"
WHOLE, *PIECES = re.findall(
    r"^```yaml\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
)


def merged(base, over):
    """As ``extends`` merges: a mapping with another type replaces."""
    if (
        not isinstance(over, dict)
        or not isinstance(base, dict)
        or base.get("type") != over.get("type", base.get("type"))
    ):
        return over
    return base | {key: merged(base.get(key), value) for key, value in over.items()}


def experiment(folder, *pieces):
    config = parse_yaml(WHOLE, "page").data
    for piece in pieces:
        config = merged(config, parse_yaml(piece, "page").data)
    config["data"]["root"] = str(folder / "data")
    return config


@pytest.mark.parametrize("piece", PIECES, ids=lambda piece: piece.split(":")[0] + str(len(piece)))
def test_each_piece_builds_and_is_dumped(piece, tmp_path):
    built = build(experiment(tmp_path, piece), kind="experiments")
    assert dump(build(dump(built), kind="experiments")) == dump(built)
    built.optimizer.build(built.model)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*pin_memory.*")
def test_all_pieces_train_together(tmp_path):
    from detcore_train import fit

    pieces = [piece for piece in PIECES if "epochs: 100" not in piece]
    config = experiment(tmp_path, *pieces, "patience: 2")
    console = Console(file=io.StringIO(), width=200)
    fit(build(config, kind="experiments"), tmp_path / "run", accelerator="cpu", console=console)
    with (tmp_path / "run" / "val.csv").open() as file:
        assert [row["epoch"] for row in csv.DictReader(file)][-1] in ("2", "3")
    groups = json.loads((tmp_path / "run" / "parameters.json").read_text())
    stem = next(row for row in groups if "backbone.conv1.weight" in row["parameters"])
    scale = 4 * 4 / 16  # images per step over base_batch_size
    assert stem["lr"] == pytest.approx(0.0002 * scale * 0.5 * 0.8**9)  # 8 residual blocks after the stem
    assert "million parameters in" in console.file.getvalue()
