from __future__ import annotations

import subprocess
import sys

import detcore_data
import pytest


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
