"""From a detector to a checked file."""

from __future__ import annotations

import copy
import os
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from detcore_postprocess import onnx_forms
from torch import Tensor
from torch.export import ExportedProgram

from detcore import __version__
from detcore.errors import ConfigError
from detcore.interfaces import Detector
from detcore_export.capturing import capture
from detcore_export.module import ExportModule
from detcore_export.runtime import onnxruntime, open_onnx, open_program
from detcore_export.verification import Comparison, Tolerance, made_up_images, verify
from detcore_export.writing import write_onnx, write_program

Format = Literal["onnx", "torch-export"]
SUFFIX: dict[str, str] = {"onnx": ".onnx", "torch-export": ".pt2"}
#: Batches that a file with a dynamic batch is checked on.
BATCHES = (1, 2, 5)


@dataclass(frozen=True)
class Exported:
    """A file that was written.

    Args:
        path: Where it is.
        format: What it is.
        min_size: Least (h, w) of images, in pixels.
        comparisons: What it was checked on; empty where it was not.
    """

    path: Path
    format: Format
    min_size: tuple[int, int]
    comparisons: tuple[Comparison, ...]

    @property
    def detections(self) -> int:
        """Detections that were compared."""
        return sum(comparison.detections for comparison in self.comparisons)

    @property
    def differences(self) -> dict[str, float]:
        """The largest difference of each output."""
        worst: dict[str, float] = {}
        for comparison in self.comparisons:
            for name, value in comparison.differences.items():
                worst[name] = max(worst.get(name, 0.0), value)
        return worst


def export(
    detector: Detector,
    path: str | Path,
    *,
    format: Format = "onnx",
    batch: int | Literal["dynamic"] = "dynamic",
    size: tuple[int, int] | Literal["dynamic"] = "dynamic",
    true_sizes: bool = False,
    opset: int | None = None,
    check: bool = True,
    images: Sequence[Tensor] = (),
    tolerance: Tolerance | None = None,
) -> Exported:
    """Writes a detector as a file that runs without detcore, and compares what the file gives with the detector.

    Inside are normalisation, padding, the network and its post-processing, and the names of the classes. Input:
    ``images``, uint8 RGB [B, 3, H, W]. Outputs: ``boxes`` [B, Q, 4] xyxy in pixels of the input, ``scores``,
    ``labels``, ``valid`` [B, Q], and ``masks`` [B, Q, h, w] where the detector has them.

    The detector is left as it is. The file appears when everything has gone well, not before.

    Args:
        detector: Any detector whose preprocessor has ``stacked``.
        path: The file; ends in ``.onnx`` or ``.pt2``.
        format: "onnx" or "torch-export".
        batch: The number of images, or "dynamic" for any.
        size: Their (h, w) in pixels, or "dynamic" for any of at least ``Exported.min_size``.
        true_sizes: Whether a second input, ``sizes`` int64 [B, 2], tells the true (h, w) of images that were padded
            to stack them.
        opset: Version of ONNX's operators; torch's choice where None.
        check: Whether the file is compared: on 1, 2 and 5 images of two sizes, as far as it takes them.
        images: More to compare on, uint8 [3, H, W], one by one.
        tolerance: By how much outputs may differ; :class:`Tolerance` where None.

    Raises:
        ConfigError: An argument cannot be used.
        NotExportableError: A module cannot be exported; names it and the operator.
        ExportMismatchError: The file gives something else; there is no file then.
        MissingRuntimeError: onnxruntime is missing, and an ONNX file is to be checked.
    """
    path = Path(path)
    _check_arguments(path, format, batch, size, opset)
    if check and format == "onnx":
        onnxruntime()
    module = ExportModule(copy.deepcopy(detector).cpu().eval())
    shape = size if size != "dynamic" else example_size(detector)
    example = _case(2 if batch == "dynamic" else batch, shape, true_sizes)
    with ExitStack() as stack:
        if format == "onnx":
            stack.enter_context(onnx_forms())
        program = capture(module, example, batch=batch == "dynamic", size=size == "dynamic")
    min_size = least_size(program)
    facts = {
        "format": 1,
        "detcore": __version__,
        "classes": detector.class_map.to_dict(),
        "batch": None if batch == "dynamic" else batch,
        "size": None if size == "dynamic" else list(size),
        "min_size": list(min_size),
        "takes_sizes": true_sizes,
    }

    def reference(*case: Tensor) -> Mapping[str, Tensor]:
        with torch.no_grad():
            outputs: Mapping[str, Tensor] = module(*case)
        return outputs

    cases = check_cases(batch, size, shape, true_sizes, images)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}.", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        if format == "onnx":
            inputs = ("images", "sizes")[: len(example)]
            outputs = tuple(reference(*example))
            write_onnx(program, temporary, facts, inputs=inputs, outputs=outputs, opset=opset)
        else:
            write_program(program, temporary, facts)
        comparisons: tuple[Comparison, ...] = ()
        if check:
            runner, _ = (open_onnx if format == "onnx" else open_program)(temporary)
            comparisons = verify(reference, runner, cases, tolerance or Tolerance())
        temporary.chmod(0o644)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return Exported(path, format, min_size, comparisons)


def _check_arguments(path: Path, format: str, batch: Any, size: Any, opset: int | None) -> None:
    if format not in SUFFIX:
        raise ConfigError(f"format should be one of {', '.join(SUFFIX)}, got {format!r}")
    if path.suffix != SUFFIX[format]:
        raise ConfigError(f"a file of format {format} should end in {SUFFIX[format]}, got {path.name!r}")
    if batch != "dynamic" and not (isinstance(batch, int) and batch >= 1):
        raise ConfigError(f"batch should be 'dynamic' or a number of images, got {batch!r}")
    if size != "dynamic" and not (len(size) == 2 and all(isinstance(n, int) and n >= 1 for n in size)):
        raise ConfigError(f"size should be 'dynamic' or (height, width) in pixels, got {size!r}")
    if opset is not None and opset < 18:
        raise ConfigError(f"opset should be at least 18, got {opset}")
    if opset is not None and format != "onnx":
        raise ConfigError(f"opset={opset} is for format onnx, not {format}; leave it out")


def example_size(detector: Detector) -> tuple[int, int]:
    """(h, w) on which a detector of any size is captured: two cells and more in the coarsest level, no multiples."""
    source = getattr(detector, "neck", None) or getattr(detector, "backbone", None)
    stride = max((level.stride for level in getattr(source, "out_features", ())), default=32)
    return max(2 * stride, 128) - 28, max(3 * stride, 160) - 25


def least_size(program: ExportedProgram) -> tuple[int, int]:
    """The least (h, w) that a captured graph takes."""
    images = next(node for node in program.graph.nodes if node.op == "placeholder" and node.name == "images")
    least = []
    for length in images.meta["val"].shape[2:]:
        expression = getattr(getattr(length, "node", None), "expr", None)
        known = program.range_constraints.get(expression)
        least.append(int(length) if expression is None else 1 if known is None else int(known.lower))
    return least[0], least[1]


def check_cases(
    batch: int | str,
    size: tuple[int, int] | str,
    shape: tuple[int, int],
    true_sizes: bool,
    images: Sequence[Tensor] = (),
) -> list[tuple[Tensor, ...]]:
    """What a file is compared on."""
    counts = BATCHES if not isinstance(batch, int) else (batch,)
    shapes = [shape] if not isinstance(size, str) else [shape, (shape[1], shape[0] + 37)]
    cases = [_case(count, one, true_sizes, seed) for seed, one in enumerate(shapes) for count in counts]
    for image in images:
        sizes = (torch.tensor([tuple(image.shape[1:])]),) if true_sizes else ()
        cases.append((image[None], *sizes))
    return cases


def _case(count: int, size: tuple[int, int], true_sizes: bool, seed: int = 0) -> tuple[Tensor, ...]:
    images = made_up_images(count, size, seed)
    if not true_sizes:
        return (images,)
    rows = torch.tensor(size).expand(count, 2).clone()
    rows[1:] -= torch.arange(1, count).clamp(max=min(size) // 2)[:, None] * torch.tensor([5, 3])
    return images, rows.clamp(min=min(size) // 2)
