from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import detcore_eval
import pytest

from detcore import dump, registry
from detcore.serialize import as_spec
from detcore.signature import signature_of

README = (Path(__file__).parents[1] / "README.md").read_text()


def test_every_name_can_be_imported():
    for name in detcore_eval.__all__:
        assert getattr(detcore_eval, name).__name__ == name
    assert dir(detcore_eval) == sorted(detcore_eval.__all__)


def test_unknown_name():
    with pytest.raises(AttributeError, match="has no attribute 'VocMetric'"):
        _ = detcore_eval.VocMetric


def test_importing_imports_nothing_heavy():
    heavy = {"torch", "numpy", "PIL", "rich", "pycocotools"}
    code = f"import sys, detcore_eval; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    "spec",
    [
        detcore_eval.VOCMetric.spec(iou_thrs=(0.5, 0.75), eval_mode="11points", classwise=True),
        detcore_eval.KittiMetric.spec(min_overlaps={"Car": 0.5}, recall_points=11),
    ],
    ids=lambda spec: spec.type.__name__,
)
def test_specs_survive_a_file(spec):
    assert as_spec(json.loads(json.dumps(dump(spec)))) == spec
    documented = spec.type.__doc__.partition("Args:")[2]
    assert all(f" {name}: " in documented for name in signature_of(spec.type).parameters)


def test_readme_blocks_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    scope = {}
    for text in re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL):
        exec(compile(text, "README.md", "exec"), scope)
    assert scope["analysis"].error_counts["missed"] > 0
    assert (tmp_path / "report" / "report.html").is_file()


def test_every_component_is_listed():
    listed = set(re.findall(r"^\| `(\w+)` \|", README, re.MULTILINE))
    assert listed == {name for name in registry.names("metrics") if name in detcore_eval.__all__}
