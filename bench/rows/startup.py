"""What a user waits for before anything happens; each run is a new process."""

from __future__ import annotations

import atexit
import functools
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.row import Row

_OURS = """
import torch
from bench.rows.models import detcore_retinanet as build
with torch.inference_mode():
    build().eval()([torch.zeros(3, 240, 320, dtype=torch.uint8)])
print("predicted", flush=True)
"""
_THEIRS = """
import torch
from bench.rows.models import torchvision_retinanet as build
with torch.inference_mode():
    build((240, 320)).eval()([torch.zeros(3, 240, 320)])
print("predicted", flush=True)
"""
_LOADED = """
import sys
import torch
import detcore
with torch.inference_mode():
    detcore.load(sys.argv[1])([torch.zeros(3, 240, 320, dtype=torch.uint8)])
print("predicted", flush=True)
"""
_THEIRS_LOADED = """
import sys
import torch
from torchvision.models.detection import retinanet_resnet50_fpn
model = retinanet_resnet50_fpn(weights=None, weights_backbone=None, num_classes=80, min_size=240, max_size=320)
model.load_state_dict(torch.load(sys.argv[1], weights_only=True))
with torch.inference_mode():
    model.eval()([torch.zeros(3, 240, 320)])
print("predicted", flush=True)
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


def until_it_says_so(text: str, *arguments: str) -> Callable[[], Any]:
    """Runs ``python -c`` up to its first line of output; what a process does at its end is nobody's wait."""

    def work() -> None:
        with subprocess.Popen([sys.executable, "-c", text, *arguments], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            said = process.stdout.readline()
            process.kill()
        if not said:
            raise RuntimeError("the program ended without a prediction")

    return work


def loaded() -> Callable[[], Any]:
    """Prepares a run of a detector of detcore from its checkpoint."""
    import detcore
    from bench.rows.models import detcore_retinanet

    path = detcore.save(detcore_retinanet(), _file())  # type: ignore[arg-type]
    return until_it_says_so(_LOADED, str(path))


def their_loaded() -> Callable[[], Any]:
    """Prepares a run of a detector of torchvision from its weights."""
    import torch

    from bench.rows.models import torchvision_retinanet

    path = _file().with_suffix(".pt")
    torch.save(torchvision_retinanet((240, 320), channels_last=False).state_dict(), path)
    return until_it_says_so(_THEIRS_LOADED, str(path))


def _file() -> Path:
    """A file in a folder that is gone with the process."""
    folder = tempfile.TemporaryDirectory()
    atexit.register(folder.cleanup)
    return Path(folder.name) / "model.safetensors"


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
        {
            "detcore": functools.partial(until_it_says_so, _OURS),
            "torchvision": functools.partial(until_it_says_so, _THEIRS),
        },
        targets={"torchvision": 1.0},
        runs=11,
    ),
    "first_prediction_loaded": Row(
        "from the start of Python to the first prediction, RetinaNet R50 from a file, 240 x 320",
        {"detcore": loaded, "torchvision": their_loaded},
        targets={"torchvision": 1.0},
        runs=11,
    ),
}
