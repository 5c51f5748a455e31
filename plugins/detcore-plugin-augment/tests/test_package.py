from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import detcore_augment
import pytest
import torch

from detcore import registry
from detcore.signature import signature_of

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", detcore_augment.__all__)
def test_every_name_can_be_imported_and_is_documented(name):
    made = getattr(detcore_augment, name)
    assert made.__name__ == name
    documented = made.__doc__.partition("Args:")[2]
    assert all(f" {parameter}: " in documented for parameter in signature_of(made).parameters)


def test_unknown_name():
    assert dir(detcore_augment) == sorted(detcore_augment.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'Mosiac'"):
        _ = detcore_augment.Mosiac


def test_importing_imports_nothing_heavy():
    code = (
        "import sys, detcore_augment; print({'torch', 'numpy', 'cv2', 'albumentations'} & set(sys.modules))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "set()\n"


def test_python_blocks_of_the_readme(tmp_path, monkeypatch):
    blocks = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    if any("Albumentations" in text for text in blocks):
        pytest.importorskip(
            "albumentations", reason="albumentations is not installed (an extra of the plugin)"
        )
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    scope = {}
    for text in blocks:
        exec(compile(text, "README.md", "exec"), scope)
    assert tuple(scope["data"][0]["image"].shape) == (3, 160, 160)


def test_every_component_is_listed():
    listed = set(re.findall(r"^\| `(\w+)` \|", README, re.MULTILINE))
    registered = set(registry.names("transforms"))
    assert listed == set(detcore_augment.__all__)
    assert listed <= registered
