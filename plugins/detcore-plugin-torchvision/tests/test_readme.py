"""The README's Python is run."""

import re
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


def test_python_blocks():
    blocks = re.findall(r"^```python\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)
    assert blocks
    for text in blocks:
        exec(
            compile(
                text.replace("resnet50_fpn(", "resnet50_fpn(min_size=96, max_size=128, "), "README.md", "exec"
            ),
            {},
        )
