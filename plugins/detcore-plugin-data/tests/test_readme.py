"""What the README shows is run."""

from __future__ import annotations

import re
from pathlib import Path

import detcore_data
import pytest
import torch
import yaml

README = (Path(__file__).parents[1] / "README.md").read_text()


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def test_python_blocks_in_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    scope = {}
    for text in blocks("python"):
        exec(compile(text, "README.md", "exec"), scope)
    assert scope["data"].class_map.names == ("circle", "square", "triangle")
    assert scope["metric"].compute()["AP"] == pytest.approx(1.0)
    assert scope["only"].class_map.names == ("triangle", "circle")


@pytest.mark.parametrize("text", blocks("yaml"))
def test_yaml_blocks_validate(text):
    config = yaml.safe_load(text)
    getattr(detcore_data, config.pop("type")).spec(**config)


def test_every_component_is_listed():
    from detcore import registry

    names = {name for kind in ("datasets", "transforms", "metrics") for name in registry.names(kind)}
    listed = set(re.findall(r"^\| `(\w+)` \|", README, re.MULTILINE))
    assert {name for name in names if name in detcore_data.__all__} == listed & names == listed
