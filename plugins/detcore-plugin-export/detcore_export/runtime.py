"""Running an exported file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from detcore.errors import CheckpointError, DataError
from detcore.structures import ClassMap, Detections
from detcore_export.errors import MissingRuntimeError
from detcore_export.verification import Runner

#: Where a file says what it is: a metadata property of ONNX, an extra file of torch.export.
KEY = "detcore.json"


def load(path: str | Path) -> ExportedDetector:
    """A detector from a file that :func:`detcore_export.export` wrote.

    Read files of torch.export (``.pt2``) from sources that you trust only.

    Args:
        path: ``NAME.onnx`` or ``NAME.pt2``.

    Raises:
        CheckpointError: It is missing, damaged, or no exported detector.
        MissingRuntimeError: It is ONNX, and onnxruntime is not installed.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    if path.suffix not in (".onnx", ".pt2"):
        raise CheckpointError(f"{path}: an exported detector ends in .onnx or .pt2")
    open_file = open_onnx if path.suffix == ".onnx" else open_program
    try:
        runner, facts = open_file(path)
    except MissingRuntimeError:
        raise
    except Exception as cause:
        raise CheckpointError(f"{path}: damaged, or not a {path.suffix} file ({cause})") from cause
    if not facts:
        raise CheckpointError(f"{path}: it does not say what its classes are; it was not exported by detcore")
    return ExportedDetector(runner, json.loads(facts))


def open_onnx(path: Path) -> tuple[Runner, str]:
    """What runs an ONNX file, and what it says of itself."""
    runtime = onnxruntime()
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    inputs = [wanted.name for wanted in session.get_inputs()]

    def run(*given: Tensor) -> Mapping[str, Tensor]:
        feed = {name: value.cpu().numpy() for name, value in zip(inputs, given, strict=True)}
        return {
            name: torch.from_numpy(value) for name, value in zip(names, session.run(None, feed), strict=True)
        }

    return run, session.get_modelmeta().custom_metadata_map.get(KEY, "")


def open_program(path: Path) -> tuple[Runner, str]:
    """What runs a file of torch.export, and what it says of itself."""
    import torchvision  # noqa: F401  registers the operators that files may have

    extra = {KEY: ""}
    program = torch.export.load(path, extra_files=extra)
    module = program.module()

    def run(*given: Tensor) -> Mapping[str, Tensor]:
        with torch.no_grad():
            outputs: Mapping[str, Tensor] = module(*given)
        return outputs

    return run, extra[KEY]


def onnxruntime() -> Any:
    """The package.

    Raises:
        MissingRuntimeError: It is not installed, or does not load.
    """
    try:
        import onnxruntime as found  # type: ignore[import-untyped]
    except ImportError as cause:
        raise MissingRuntimeError(
            f"onnxruntime, which runs and checks ONNX files, cannot be imported ({cause}); pip install onnxruntime, "
            "or export without the check (--no-check)"
        ) from cause
    return found


class ExportedDetector:
    """An exported detector: images to detections.

    Args:
        runner: Runs the file.
        facts: What the file says of itself.
    """

    def __init__(self, runner: Runner, facts: Mapping[str, Any]) -> None:
        self._run = runner
        self.class_map = ClassMap.from_dict(facts["classes"])
        self.takes_sizes = bool(facts["takes_sizes"])
        #: Least (h, w) of images, in pixels.
        self.min_size: tuple[int, int] = tuple(facts["min_size"])
        #: (h, w) of images where the file is for one size, else None.
        self.size: tuple[int, int] | None = tuple(facts["size"]) if facts["size"] else None
        #: Number of images where the file is for one, else None.
        self.batch: int | None = facts["batch"]

    def __call__(self, images: Tensor | Sequence[Tensor]) -> Detections:
        """Detections in the pixels of the images.

        Args:
            images: uint8 RGB, [B, 3, H, W] or a list of [3, H, W] of any sizes.

        Raises:
            DataError: There is no image, or one is not uint8 [3, H, W], or of a size or in a number that the file
                is not for.
        """
        rows = list(images)
        for place, image in enumerate(rows):
            self._check(place, image)
        if not rows:
            raise DataError("a batch needs at least one image")
        groups: dict[tuple[int, ...], list[int]] = {}
        for place, image in enumerate(rows):
            groups.setdefault(() if self.takes_sizes else tuple(image.shape), []).append(place)
        found = [self._detect([rows[place] for place in places]) for places in groups.values()]
        order = torch.tensor([place for places in groups.values() for place in places]).argsort()
        outputs = {name: torch.cat([part[name] for part in found])[order] for name in found[0]}
        sizes = torch.tensor([tuple(image.shape[1:]) for image in rows])
        return Detections(**outputs, image_sizes=sizes)

    def _detect(self, images: Sequence[Tensor]) -> Mapping[str, Tensor]:
        if self.batch is not None and len(images) != self.batch:
            raise DataError(f"the file is for {self.batch} images at once, got {len(images)}")
        if not self.takes_sizes:
            return self._run(torch.stack(list(images)))
        sizes = torch.tensor([tuple(image.shape[1:]) for image in images])
        height, width = self.size or torch.maximum(sizes.amax(0), torch.tensor(self.min_size)).tolist()
        stacked = images[0].new_zeros((len(images), 3, height, width))
        for row, image in zip(stacked, images, strict=True):
            row[:, : image.shape[1], : image.shape[2]] = image
        return self._run(stacked, sizes)

    def _check(self, place: int, image: Tensor) -> None:
        shape = list(image.shape)
        if image.dtype != torch.uint8 or image.dim() != 3 or shape[0] != 3:
            raise DataError(f"images[{place}]: expected uint8 [3, H, W], got {image.dtype} {shape}")
        height, width = shape[1:]
        if self.size and (self.takes_sizes and not (height <= self.size[0] and width <= self.size[1])):
            raise DataError(
                f"images[{place}]: the file is for images up to {list(self.size)}, got {shape[1:]}"
            )
        if self.size and not self.takes_sizes and (height, width) != self.size:
            raise DataError(f"images[{place}]: the file is for images of {list(self.size)}, got {shape[1:]}")
        if not self.size and not self.takes_sizes and (height < self.min_size[0] or width < self.min_size[1]):
            raise DataError(
                f"images[{place}]: the file is for images of at least {list(self.min_size)}, got {shape[1:]}"
            )
