import re
import subprocess
import sys
from pathlib import Path

import detcore_coders
import pytest


def test_importing_the_package_imports_no_torch():
    code = "import sys, detcore_coders; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_names_are_listed_and_unknown_ones_refused():
    assert set(detcore_coders.__all__) <= set(dir(detcore_coders))
    with pytest.raises(AttributeError, match="module 'detcore_coders' has no attribute 'Coder'"):
        detcore_coders.Coder


def test_the_readme_runs():
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    names = {}
    exec("\n".join(blocks), names)
    assert names["boxes"][0].tolist() == pytest.approx([12, 24, 40, 64])
