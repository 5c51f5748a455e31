"""What a user waits for before anything happens; each run is a new process."""

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.row import Row

_OURS = """
import torch
from bench.rows.models import detcore_retinanet as build
with torch.inference_mode():
    build().eval()([torch.zeros(3, 240, 320, dtype=torch.uint8)])
"""
_THEIRS = """
import torch
from bench.rows.models import torchvision_retinanet as build
with torch.inference_mode():
    build((240, 320)).eval()([torch.zeros(3, 240, 320)])
"""


def command(*arguments: str) -> Callable[[], Any]:
    """Runs a program with this interpreter."""
    return lambda: subprocess.run([sys.executable, *arguments], check=True, capture_output=True)


def script(name: str, *arguments: str) -> Callable[[], Any]:
    """Runs an installed program of this environment."""
    path = str(Path(sys.executable).with_name(name))
    return lambda: subprocess.run([path, *arguments], check=True, capture_output=True)


def code(text: str) -> Callable[[], Callable[[], Any]]:
    """Prepares a run of ``python -c``."""
    return functools.partial(command, "-c", text)


ROWS = {
    "import": Row(
        "import of the library",
        {
            "detcore": code("import detcore"),
            "torchvision": code("import torchvision.models.detection"),
            "mmdet": code("import mmdet.models"),
        },
        targets={"torchvision": 1.0, "mmdet": 1.0},
    ),
    "list": Row(
        "`detcore list`", {"detcore": functools.partial(script, "detcore", "list")}, max_seconds=0.25
    ),
    "first_prediction": Row(
        "from the start of Python to the first prediction, RetinaNet R50, 240 x 320",
        {"detcore": code(_OURS), "torchvision": code(_THEIRS)},
        targets={"torchvision": 1.0},
        runs=11,
        why="Nine tenths of it are the import and the end of torch and torchvision, which both need. pydantic comes on "
        "top, and makes up for most of what building the detector takes less; runs differ by more than that.",
    ),
}
