"""Runs the Python blocks of a README, given as argument, against what is installed. Called by ``nox -s wheels``."""

import re
import sys
from pathlib import Path

import detcore

if Path(detcore.__file__).resolve().parent == Path(__file__).resolve().parents[1] / "detcore":
    sys.exit(f"detcore comes from the checkout ({detcore.__file__}), not from a wheel")
scope: dict = {}
for block in re.findall(r"^```python\n(.*?)^```", Path(sys.argv[1]).read_text(), re.MULTILINE | re.DOTALL):
    exec(compile(block, "README.md", "exec"), scope)
sys.stdout.write(f"losses {dict(scope['losses'])}\n")
