import re
import subprocess
import sys
from pathlib import Path

import detcore_priors
import pytest
from detcore_priors import AnchorGenerator, PointGenerator, PriorGrid

from detcore import build, dump, registry
from detcore.errors import ConfigError


def test_importing_the_package_imports_no_torch():
    code = "import sys, detcore_priors; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_names_are_listed_and_unknown_ones_refused():
    assert set(detcore_priors.__all__) <= set(dir(detcore_priors))
    with pytest.raises(AttributeError, match="module 'detcore_priors' has no attribute 'Anchors'"):
        detcore_priors.Anchors


@pytest.mark.parametrize("component", [AnchorGenerator, PointGenerator])
def test_components_are_registered_under_their_names(component):
    assert registry.resolve("prior_generators", component.__name__) is component


@pytest.mark.parametrize(
    "made",
    [
        AnchorGenerator(ratios=(1.0, 2.0), scales=(8.0,), strides=(8, (16, 12)), centers=((1, 2), (3, 4))),
        AnchorGenerator(
            ratios=(1.0,), octave_base_scale=4, scales_per_octave=3, strides=(8,), base_sizes=(9,)
        ),
        PointGenerator(offset=0.25, strides=(8, 16)),
    ],
)
def test_a_dumped_config_builds_the_same(made):
    config = dump(made)
    again = build(config)
    assert type(again) is type(made)
    assert dump(again) == config
    assert again._grid.base == made._grid.base
    assert again._grid.strides == made._grid.strides


def test_a_grid_needs_base_boxes_for_each_stride():
    with pytest.raises(ConfigError, match="Mine: got base boxes for 1 levels and 2 strides"):
        PriorGrid([[(0.0, 0.0, 8.0, 8.0)]], [(8, 8), (16, 16)], "Mine")


def test_the_readme_runs():
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    names = {}
    exec("\n".join(blocks), names)
    assert f"[{len(names['priors'])}, 4]" in readme
