from __future__ import annotations

import json
import subprocess
import sys

import detcore_data
import pytest

from detcore import dump
from detcore.schema import json_schema
from detcore.serialize import as_spec
from detcore.signature import signature_of


def test_every_name_can_be_imported():
    for name in detcore_data.__all__:
        assert getattr(detcore_data, name).__name__ == name
    assert dir(detcore_data) == sorted(detcore_data.__all__)


def test_unknown_name():
    with pytest.raises(AttributeError, match="has no attribute 'CocoDatset'"):
        _ = detcore_data.CocoDatset


def test_importing_imports_nothing_heavy():
    code = (
        "import sys, detcore_data; print(sorted({'torch', 'numpy', 'PIL', 'pycocotools'} & set(sys.modules)))"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        == "[]\n"
    )


@pytest.mark.parametrize(
    "spec",
    [
        detcore_data.CocoDataset.spec(annotations="a.json", images="i", classes=("x",), policy="drop"),
        detcore_data.VocDataset.spec(annotations="a", images="i", split="s.txt", origin=1),
        detcore_data.KittiDataset.spec(annotations="a", images="i", merge={"Van": "Car"}, ignored=()),
        detcore_data.ShapesDataset.spec(
            root="r",
            size=(64, 96),
            transforms=(detcore_data.RandomFlip.spec(direction=("vertical", "diagonal")),),
        ),
        detcore_data.CocoMetric.spec(iou_types=("segm",), max_dets=(10, 100), classwise=True),
    ],
    ids=lambda spec: spec.type.__name__,
)
def test_specs_survive_a_file(spec):
    text = json.dumps(dump(spec))
    assert as_spec(json.loads(text)) == spec


@pytest.mark.parametrize(
    "name", [name for name in detcore_data.__all__ if name.endswith(("Dataset", "Resize", "Metric"))]
)
def test_every_parameter_is_in_the_schema_and_documented(name):
    schema = json_schema(name)
    text = json.dumps(schema)
    for parameter in signature_of(getattr(detcore_data, name)).parameters:
        assert f'"{parameter}": {{' in text
    documented = getattr(detcore_data, name).__doc__.partition("Args:")[2]
    assert all(
        f" {parameter}: " in documented for parameter in signature_of(getattr(detcore_data, name)).parameters
    )
